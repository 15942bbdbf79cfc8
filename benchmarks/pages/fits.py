"""Fitted exponents and ratios, with their errors."""

from __future__ import annotations

import math
from statistics import linear_regression, mean, median, quantiles


def exponent(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    """The exponent e of the fit seconds ~ size^e by least squares of the logarithms of three or more, and its error."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    line, middle, freedom = linear_regression(x, y), mean(x), len(x) - 2
    squares = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
    return line.slope, math.sqrt(squares / freedom / sum((a - middle) ** 2 for a in x))


def ratio_of(slower: list[float], faster: list[float]) -> tuple[float, float | None]:
    """How many times as long the first takes, and half the range of the middle 80 % of the rounds.

    Rounds are compared one by one, as they were run in turn; with other numbers of rounds the medians are compared,
    and the error is None.
    """
    if len(slower) != len(faster) or len(slower) < 3:
        return median(slower) / median(faster), None
    each = [a / b for a, b in zip(slower, faster, strict=True)]
    tenths = quantiles(each, n=10, method="inclusive")
    return median(each), (tenths[-1] - tenths[0]) / 2
