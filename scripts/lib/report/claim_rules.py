"""Rules that say whether a claim of the paper holds in our records.

A rule compares runs of equal data, D, budget and seed, and gives its verdict with the numbers that it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from math import sqrt
from statistics import mean

from lib.repository import Record
from lib.reproduce.cells import Cell, Overrides

# Points: twice the standard error of the lead of one run over another. 10,000 test images of which the two judge a
# quarter differently give 1.0, and seeds that change the accuracy of each by 0.4 points 1.1.
NOISE = 1.5
Verdict = tuple[bool, str]  # whether the claim holds, and the numbers that say so
Found = Mapping[Cell, Record]  # of one budget
Rule = Callable[[Found], Verdict | None]  # None: the runs do not tell
Method = tuple[str, Overrides]


def tested(found: Found, data: str, dim: int, method: Method) -> dict[int, float]:
    """Test accuracy in percent by seed."""
    wanted = (data, dim, *method)
    return {
        cell.seed: 100 * record["test"]
        for cell, record in found.items()
        if (cell.data, cell.dim, cell.method, cell.overrides) == wanted
    }


def leads(ours: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Points that ours is ahead, at each seed that both have."""
    return [ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())]


def by_place(found: Found, where: list[tuple[str, int]], ours: Method, other: Method) -> dict[str, list[float]]:
    """The leads by data and D, where both were run."""
    several = len({data for data, _ in where}) > 1
    known = {place: leads(tested(found, *place, ours), tested(found, *place, other)) for place in where}
    names = {place: f"{place[0]}, D = {place[1]}" if several else f"D = {place[1]}" for place in where}
    return {names[place]: points for place, points in known.items() if points}


def plain(name: str) -> Method:
    return name, ()


def ahead(ours: str, other: str, *where: tuple[str, int], overrides: Overrides = ()) -> Rule:
    """Holds if ours leads by more than the noise in the mean, NOISE / √runs, and is nowhere more than NOISE behind."""

    def rule(found: Found) -> Verdict | None:
        points = by_place(found, list(where), plain(ours), (other, overrides))
        runs = list(chain.from_iterable(points.values()))
        if not runs:
            return None
        return mean(runs) > NOISE / sqrt(len(runs)) and least(points) > -NOISE, shown(points)

    return rule


def level(ours: str, other: str, *where: tuple[str, int]) -> Rule:
    """Holds if ours is nowhere more than NOISE points behind."""

    def rule(found: Found) -> Verdict | None:
        points = by_place(found, list(where), plain(ours), plain(other))
        return (least(points) > -NOISE, shown(points)) if points else None

    return rule


def more_at_small_dim(ours: str, other: str, *where: tuple[str, int]) -> Rule:
    """Holds if the lead at the least D exceeds that at the largest by more than the noise of two leads, √2 · NOISE."""

    def rule(found: Found) -> Verdict | None:
        points = by_place(found, list(where), plain(ours), plain(other))
        if len(points) < 2:
            return None
        first, *_, last = map(mean, points.values())
        return first - last > sqrt(2) * NOISE, shown(points)

    return rule


def half_the_dimension(data: str, dim: int, ours: str, *others: str) -> Rule:
    """Holds if ours at D leads each of the others at 2D by more than NOISE points, once all of them were run."""

    def rule(found: Found) -> Verdict | None:
        a = tested(found, data, dim, plain(ours))
        rivals = {name: leads(a, tested(found, data, 2 * dim, plain(name))) for name in others}
        points = {f"against {name}, D = {2 * dim}": led for name, led in rivals.items() if led}
        holds = bool(points) and least(points) > NOISE
        return (holds, shown(points)) if points and (not holds or len(points) == len(others)) else None

    return rule


def settles(data: str, *dims: int) -> Rule:
    """Holds if at every D the last third of the epochs moves less than half of what the first third moves; seed 0."""

    def rule(found: Found) -> Verdict | None:
        shares = {}
        for cell, record in found.items():
            moved = [100 * entry["moved"] for entry in record["curve"] if entry["moved"] is not None]
            mine = (cell.data, cell.method, cell.overrides, cell.seed) == (data, *plain("dynamic"), 0)
            if mine and cell.dim in dims and len(moved) >= 3:
                third = len(moved) // 3
                shares[f"D = {cell.dim}"] = mean(moved[:third]), mean(moved[-third:])
        words = ", ".join(f"{place}: {a:.0f} % to {b:.0f} %" for place, (a, b) in sorted(shares.items()))
        return (all(b < a / 2 for a, b in shares.values()), words) if shares else None

    return rule


def enough(method: str, key: str, more: str) -> Rule:
    """Holds if a larger value of a setting than the default leads by no more than NOISE points."""

    def rule(found: Found) -> Verdict | None:
        points = by_place(found, [("cifar100", 50)], (method, ((key, more),)), plain(method))
        return (least(points) <= NOISE, f"{least(points):+.2f} with {more}") if points else None

    return rule


def descent_reaches(rows: list[Record]) -> Verdict:
    """Holds if the paper's descent comes within 0.01 of the paper's largest cosine at C = 100, D = 50."""
    own = [row for row in rows if (row["classes"], row["dim"]) == (100, 50)]
    (paper,) = (float(row["max_cosine"]) for row in own if row["what"] == "paper")
    best = min(row["max_cosine"] for row in own if row["what"].startswith("SGD"))
    return best <= paper + 0.01, f"{best:.3f}; the paper's {paper:g}"


def angle_hides(rows: list[Record]) -> Verdict:
    """Holds if a degenerate set has an average angle as large as that of the best, and a hundredth of its distance."""
    sets = {row["what"]: row for row in rows if row["part"] == "sets"}
    poles, best = sets["50 copies of u and 50 of -u"], sets["fastproto, uniform"]
    hidden = poles["mean_angle"] >= best["mean_angle"] - 1 and poles["distance"] < best["distance"] / 100
    return hidden, f"{poles['mean_angle']:.1f}° of two points, 50 times each; {best['mean_angle']:.1f}° of the best"


def least(points: Mapping[str, list[float]]) -> float:
    """The least of the mean leads."""
    return min(map(mean, points.values()))


def shown(points: Mapping[str, list[float]]) -> str:
    return ", ".join(f"{place}: {mean(led):+.2f}" for place, led in points.items())
