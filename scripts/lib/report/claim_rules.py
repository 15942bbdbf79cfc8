"""Rules that say whether a claim of the paper holds in our records.

A rule compares runs of equal data, D, budget and seed, and gives its verdict with the numbers that it rests on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import mean

from lib.repository import Record
from lib.reproduce.cells import Cell, Overrides

# Points: twice the standard error of the lead of one run over another. Assumed, not measured: 10,000 test images of
# which the two judge a quarter differently give 1.0, and seeds that change the accuracy of each by 0.4 points 1.1.
NOISE = 1.5
HOLDS, FAILS, UNCLEAR = "holds", "does not hold here", "within the noise"
NO_DIFFERENCE = "no difference seen"
Verdict = tuple[str, str]  # one of these three, and the numbers that say so
Found = Mapping[Cell, Record]  # of one budget
Rule = Callable[[Found], Verdict | None]  # None: the runs do not tell
Method = tuple[str, Overrides]


@dataclass(frozen=True)
class Lead:
    """Points of test accuracy that one method is ahead of another, over the seeds that both have."""

    points: float
    seeds: int = 1

    @property
    def noise(self) -> float:
        return NOISE / sqrt(self.seeds)

    @property
    def answer(self) -> str:
        return answer(self.points, self.noise)

    def __str__(self) -> str:
        return f"{self.points:+.2f}" + (f" ({self.seeds} seeds)" if self.seeds > 1 else "")


Leads = dict[str, Lead]  # by the words for data and D


def answer(points: float, noise: float) -> str:
    """Whether points are more than 0."""
    return UNCLEAR if abs(points) <= noise else HOLDS if points > 0 else FAILS


def average(leads: Leads) -> str:
    """Whether the mean of leads is more than 0: each counts once, whatever its number of seeds."""
    noise = sqrt(sum(lead.noise**2 for lead in leads.values())) / len(leads)
    return answer(mean(lead.points for lead in leads.values()), noise)


def tested(found: Found, data: str, dim: int, method: Method) -> dict[int, float]:
    """Test accuracy in percent by seed."""
    wanted = (data, dim, *method)
    return {
        cell.seed: 100 * record["test"]
        for cell, record in found.items()
        if (cell.data, cell.dim, cell.method, cell.overrides) == wanted
    }


def lead_of(ours: Mapping[int, float], other: Mapping[int, float]) -> Lead | None:
    """The mean over the seeds that both have; None where they have none in common."""
    seeds = sorted(ours.keys() & other.keys())
    return Lead(mean(ours[seed] - other[seed] for seed in seeds), len(seeds)) if seeds else None


def by_place(found: Found, where: Iterable[tuple[str, int]], ours: Method, other: Method) -> Leads:
    """The leads by data and D, where both were run."""
    known = {place: lead_of(tested(found, *place, ours), tested(found, *place, other)) for place in where}
    several = len({data for data, _ in known}) > 1
    return {
        f"{data}, D = {dim}" if several else f"D = {dim}": lead
        for (data, dim), lead in known.items()
        if lead is not None
    }


def plain(name: str) -> Method:
    return name, ()


def ahead(ours: str, other: str, *where: tuple[str, int], overrides: Overrides = ()) -> Rule:
    """Holds if ours leads by more than the noise in the mean over the places and is clearly behind at none."""

    def rule(found: Found) -> Verdict | None:
        leads = by_place(found, where, plain(ours), (other, overrides))
        if not leads:
            return None
        behind = any(lead.answer == FAILS for lead in leads.values())
        return FAILS if behind else average(leads), shown(leads)

    return rule


def level(ours: str, other: str, *where: tuple[str, int]) -> Rule:
    """Holds if ours is clearly behind neither in the mean over the places nor at one of them."""

    def rule(found: Found) -> Verdict | None:
        leads = by_place(found, where, plain(ours), plain(other))
        if not leads:
            return None
        answers = {average(leads), *(lead.answer for lead in leads.values())}
        unseen = f" ({NO_DIFFERENCE})" if answers == {UNCLEAR} else ""
        return FAILS if FAILS in answers else HOLDS, shown(leads) + unseen

    return rule


def more_at_small_dim(ours: str, other: str, *where: tuple[str, int]) -> Rule:
    """Holds if ours leads at the first D, the least, and leads there by clearly more than at each of the others.

    Until all D were run there is no verdict, unless those that were run refute it.
    """

    def rule(found: Found) -> Verdict | None:
        leads = by_place(found, where, plain(ours), plain(other))
        first = leads.get(f"D = {where[0][1]}")
        if first is None or len(leads) < 2:
            return None
        others = [lead for lead in leads.values() if lead is not first]
        more = [answer(first.points - lead.points, sqrt(first.noise**2 + lead.noise**2)) for lead in others]
        verdict = worst([first.answer, *more])
        return (verdict, shown(leads)) if verdict == FAILS or len(leads) == len(where) else None

    return rule


def half_the_dimension(data: str, dim: int, ours: str, *others: str) -> Rule:
    """Holds if ours at D clearly leads each of the others at 2D, once all of them were run."""

    def rule(found: Found) -> Verdict | None:
        a = tested(found, data, dim, plain(ours))
        rivals = {name: lead_of(a, tested(found, data, 2 * dim, plain(name))) for name in others}
        leads = {f"against {name}, D = {2 * dim}": lead for name, lead in rivals.items() if lead is not None}
        verdict = worst(lead.answer for lead in leads.values())
        return (verdict, shown(leads)) if leads and (verdict == FAILS or len(leads) == len(others)) else None

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
        return (yes_or_no(all(b < a / 2 for a, b in shares.values())), words) if shares else None

    return rule


def enough(method: str, key: str, more: str) -> Rule:
    """Holds if a larger value of a setting than the default is not clearly ahead."""

    def rule(found: Found) -> Verdict | None:
        leads = by_place(found, [("cifar100", 50)], (method, ((key, more),)), plain(method))
        if not leads:
            return None
        (lead,) = leads.values()
        unseen = f" ({NO_DIFFERENCE})" if lead.answer == UNCLEAR else ""
        return FAILS if lead.answer == HOLDS else HOLDS, f"{lead} with {more}{unseen}"

    return rule


def descent_reaches(rows: list[Record]) -> Verdict:
    """Holds if the paper's descent comes within 0.01 of the paper's largest cosine at C = 100, D = 50."""
    own = [row for row in rows if (row["classes"], row["dim"]) == (100, 50)]
    (paper,) = (float(row["max_cosine"]) for row in own if row["what"] == "paper")
    best = min(row["max_cosine"] for row in own if row["what"].startswith("SGD"))
    return yes_or_no(best <= paper + 0.01), f"{best:.3f}; the paper's {paper:g}"


def angle_hides(rows: list[Record]) -> Verdict:
    """Holds if a degenerate set has an average angle as large as that of the best, and a hundredth of its distance."""
    sets = {row["what"]: row for row in rows if row["part"] == "sets"}
    poles, best = sets["50 copies of u and 50 of -u"], sets["fastproto, uniform"]
    hidden = poles["mean_angle"] >= best["mean_angle"] - 1 and poles["distance"] < best["distance"] / 100
    words = f"{poles['mean_angle']:.1f}° of two points, 50 times each; {best['mean_angle']:.1f}° of the best"
    return yes_or_no(hidden), words


def yes_or_no(holds: bool) -> str:
    return HOLDS if holds else FAILS


def worst(answers: Iterable[str]) -> str:
    """Of conditions that must all hold."""
    return max(answers, key=(HOLDS, UNCLEAR, FAILS).index, default=UNCLEAR)


def shown(leads: Leads) -> str:
    return ", ".join(f"{place}: {lead}" for place, lead in leads.items())
