"""Fitted exponents and ratios, with their errors."""

from __future__ import annotations

import math
from itertools import chain
from statistics import linear_regression, mean, median


def exponent(sizes: list[float], seconds: list[float]) -> tuple[float, float]:
    """The exponent e of the fit seconds ~ size^e by least squares of the logarithms of three or more, and its error."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    line, middle, freedom = linear_regression(x, y), mean(x), len(x) - 2
    squares = sum((b - line.slope * a - line.intercept) ** 2 for a, b in zip(x, y, strict=True))
    return line.slope, math.sqrt(squares / freedom / sum((a - middle) ** 2 for a in x))


def ratio_of(slower: list[list[float]], faster: list[list[float]]) -> tuple[float, float | None]:
    """How many times as long the first takes, and the error, from the rounds of each visit.

    The rounds of the visits that both have are compared one by one, as they were run in turn. Of fewer than three the
    medians are compared, without an error.
    """
    pairs = [pair for a, b in zip(slower, faster, strict=False) if len(a) == len(b) for pair in zip(a, b, strict=True)]
    if len(pairs) < 3:
        return median(chain(*slower)) / median(chain(*faster)), None
    each = sorted(a / b for a, b in pairs)
    return median(each), half_range(each)


def half_range(ordered: list[float]) -> float:
    """Half the range, from eight on without the lowest and the highest."""
    kept = ordered[1:-1] if len(ordered) >= 8 else ordered
    return (kept[-1] - kept[0]) / 2
