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


def ratios_of(slower: list[list[float]], faster: list[list[float]]) -> list[float]:
    """How many times as long the first takes, round by round, in the visits that both have.

    Rounds of a visit were run in turn.
    """
    visits = [visit for visit in zip(slower, faster, strict=False) if len(visit[0]) == len(visit[1])]
    return [a / b for visit in visits for a, b in zip(*visit, strict=True)]


def ratio_of(slower: list[list[float]], faster: list[list[float]]) -> tuple[float, float | None]:
    """The median of these ratios, and the error; of fewer than three the ratio of the medians, without an error."""
    each = sorted(ratios_of(slower, faster))
    if len(each) < 3:
        return median(chain(*slower)) / median(chain(*faster)), None
    return median(each), half_range(each)


def half_range(ordered: list[float]) -> float:
    """Half the range, from eight on without the lowest and the highest."""
    kept = ordered[1:-1] if len(ordered) >= 8 else ordered
    return (kept[-1] - kept[0]) / 2
