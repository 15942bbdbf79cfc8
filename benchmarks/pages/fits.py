"""Fitted exponents and ratios, with their errors."""

from __future__ import annotations

import math
from itertools import product
from statistics import linear_regression, mean, median


def exponent(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    """The exponent e of the fit seconds ~ size^e by least squares of the logarithms of three or more, and its error."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    line, middle, freedom = linear_regression(x, y), mean(x), len(x) - 2
    squares = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
    return line.slope, math.sqrt(squares / freedom / sum((a - middle) ** 2 for a in x))


def ratio_of(slower: list[float], faster: list[float]) -> tuple[float, float | None]:
    """How many times as long the first takes, and half the range over the rounds, of which it needs three.

    Rounds are compared one by one, as they were run in turn; with other numbers of rounds each with each.
    """
    if min(len(slower), len(faster)) < 3:
        return median(slower) / median(faster), None
    pairs = zip(slower, faster, strict=True) if len(slower) == len(faster) else product(slower, faster)
    each = [a / b for a, b in pairs]
    return median(each), (max(each) - min(each)) / 2
