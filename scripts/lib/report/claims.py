"""What the paper says, a sentence each, and what our records say of it: by a rule, never by hand.

There is one verdict for each budget: a backbone with a number of epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.pages.formats import listed, markdown
from lib.report.claim_rules import (
    NOISE,
    Rule,
    Verdict,
    ahead,
    angle_hides,
    descent_reaches,
    enough,
    half_the_dimension,
    level,
    more_at_small_dim,
    settles,
)
from lib.report.paper import by_cell, made_with
from lib.repository import NOT_MEASURED, Record
from lib.reproduce.cells import Cell
from lib.reproduce.recipes import RECIPES


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the rule that tests it.

    Args:
        sentence: what is claimed.
        source: the table or figure; "not seen" where it was not at hand, "ours" where the paper claims no such thing.
        rule: what the runs of one budget say.
    """

    sentence: str
    source: str
    rule: Rule


@dataclass(frozen=True)
class Computed:
    """The same of a table or figure without training runs: ``rule`` takes the rows of ``file``."""

    sentence: str
    source: str
    file: str
    rule: Callable[[list[Record]], Verdict]


CIFAR = tuple(("cifar100", dim) for dim in (10, 25, 50, 100))
LONG_TAILED = tuple(
    (f"{name}-lt-{imbalance}", dim)
    for name, dim in (("cifar10", 64), ("svhn", 64), ("stl10", 64), ("cifar100", 128))
    for imbalance in ("0.005", "0.01", "0.02")
)
SETTLING = settles("cifar100", 10, 25, 50)
CLAIMS: tuple[Claim | Computed, ...] = (
    Claim("Renewing the assignment raises accuracy, D < C - 1", "Figure 4a", ahead("dynamic", "fixed", *CIFAR[:3])),
    Claim(
        "Renewing the assignment raises accuracy most at the smallest D",
        "Figure 4a",
        more_at_small_dim("dynamic", "fixed", *CIFAR[:3]),
    ),
    Claim("Renewals move fewer labels as training goes on", "Figure 4b", SETTLING),
    Claim("Dynamic is ahead of learned prototypes", "Table 1", ahead("dynamic", "psc", *CIFAR)),
    Claim(
        "The lead of dynamic over learned prototypes is largest at the smallest D",
        "Table 1",
        more_at_small_dim("dynamic", "psc", *CIFAR),
    ),
    Claim(
        "Dynamic is ahead of learned prototypes whose cross-entropy has scale 1 (the paper states no scale)",
        "ours, beside Table 1",
        ahead("dynamic", "psc", CIFAR[0], CIFAR[2], overrides=(("head.scale", "1"),)),
    ),
    Claim("Dynamic is ahead of HPN, D ≤ 50", "Table 1", ahead("dynamic", "hpn", *CIFAR[:3])),
    Claim(
        "Dynamic at D = 50 is ahead of psc and hpn at D = 100",
        "Table 1",
        half_the_dimension("cifar100", 50, "dynamic", "psc", "hpn"),
    ),
    Claim(
        "Dynamic is ahead of learned prototypes on ImageNet-200, D = 25 (here also with pictures of 32 x 32)",
        "Table 1",
        ahead("dynamic", "psc", ("imagenet200", 25), ("imagenet200-32px", 25)),
    ),
    Claim(
        "Dynamic is ahead of learned prototypes on ImageNet-1K",
        "Table 3, not seen",
        ahead("dynamic", "psc", ("imagenet", 512)),
    ),
    Claim(
        "Dynamic is ahead of learned prototypes on long tails",
        "Tables 4, 5, not seen",
        ahead("dynamic", "psc", *LONG_TAILED),
    ),
    Claim("On long tails dynamic is not behind ETF", "Tables 4, 5, not seen", level("dynamic", "etf", *LONG_TAILED)),
    Computed(
        "The paper's descent makes opposite pairs of 100 prototypes, D = 50", "Table 7", "table7", descent_reaches
    ),
    Claim(
        "Evenly spread prototypes beat learned ones that are then fixed",
        "Table 8",
        ahead("dynamic", "dynamic-from-psc", CIFAR[0], CIFAR[2]),
    ),
    Claim(
        "Dynamic is ahead of learned prototypes with L_uni beside their cross-entropy (PSC*)",
        "Table 8",
        ahead("dynamic", "psc-uniform", CIFAR[0], CIFAR[2]),
    ),
    Claim(
        "L_uni beside the cross-entropy raises the accuracy of learned prototypes",
        "ours, beside Table 8",
        ahead("psc-uniform", "psc", CIFAR[0], CIFAR[2]),
    ),
    *(
        Claim(
            f"On fixed prototypes Eq. 6 is ahead of cross-entropy with scale {scale}",
            "Table 9",
            ahead("fixed", "fixed-softmax", CIFAR[2], overrides=(("head.scale", scale),)),
        )
        for scale in ("1", "16")
    ),
    Computed("The average angle hides degenerate prototypes", "Figure 2", "figure2", angle_hides),
    Claim("One renewal an epoch is enough", "Figure 3b", enough("dynamic", "head.renewals_per_epoch", "10")),
)


def table(records: list[Record] | None, table7: list[Record] | None, figure2: list[Record] | None) -> str:
    """A row for each claim: the verdict, and the points that it rests on; and of how many seeds they are."""
    found, computed = budgets(records or []), {"table7": table7, "figure2": figure2}
    rows = []
    for claim in CLAIMS:
        if isinstance(claim, Claim):
            verdicts = {budget: claim.rule(own) for budget, own in found.items()}
            rows.append([claim.sentence, claim.source, *_judged({k: v for k, v in verdicts.items() if v is not None})])
        else:
            known = computed[claim.file]
            rows.append([claim.sentence, claim.source, *_judged({} if known is None else {"": claim.rule(known)})])
    head = ["claim", "source", "verdict", "points of test accuracy, or what the rule looks at"]
    return "\n\n".join([markdown(head, rows), *_seeds(found)])


def _seeds(found: dict[str, dict[Cell, Record]]) -> list[str]:
    seeds = {cell.seed for own in found.values() for cell in own}
    one = "Every lead is of one seed." if len(seeds) == 1 else "A lead without a number of seeds is of one seed."
    noise = f"The noise of {NOISE:g} points is assumed (seeds differ by 0.4 points), not measured."
    return [listed([f"{one} {noise}"])] if seeds else []


def budgets(records: list[Record]) -> dict[str, dict[Cell, Record]]:
    """The records of the paper's tables by budget, in words; of a backbone the longest first.

    Recipes with the same backbone are for different data.
    """
    own = {cell: record for cell, record in by_cell(records).items() if cell.table != "losses"}  # that is our study
    found: dict[str, dict[Cell, Record]] = {}
    for cell in sorted(own, key=lambda cell: (list(RECIPES).index(cell.recipe), -cell.epochs)):
        found.setdefault(made_with(cell.budget), {})[cell] = own[cell]
    return found


def _judged(verdicts: dict[str, Verdict]) -> tuple[str, str]:
    """The verdicts in words: one where all budgets agree."""
    if not verdicts:
        return NOT_MEASURED, ""
    said = {name: word for name, (word, _) in verdicts.items()}
    alike = len(set(said.values())) == 1
    verdict = next(iter(said.values())) if alike else "; ".join(f"{name}: {word}" for name, word in said.items())
    return verdict, "; ".join(f"{name}: {why}" if name else why for name, (_, why) in verdicts.items())
