"""Prototypes: what a search reaches and takes, beside bounds, the authors' files and the paper's descent.

A pass visits every pair once; each evaluation of a line search counts. ``search_pass`` is the time of one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fastproto.prototypes import Prototypes, estimate_prototypes, load_prototypes
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.starts import random_start
from fastproto.support.options import Effort

from .comparison import Case, Comparison, Provider, Record, Row, Setup, Size, Unavailable, Work, compared
from .given import GIVEN
from .instances import IN_TURN

BEST_KNOWN = {  # (C, D): the lowest L_uni known at t = 2
    (100, 10): -3.4596,
    (100, 25): -3.8712,
    (200, 25): -3.7915,
    (200, 50): -3.9336,
    (1000, 64): -3.8982,
    (5000, 128): -3.9424,
    (10000, 512): -3.9863,
}
LONG_DESCENT = 1_000
Trace = list[tuple[float, float, float]]
Inputs = tuple[Size, torch.device]


def search(effort: Effort, given: Inputs) -> Setup:
    size, device = given
    trace: Trace = []
    kept = trace if size["objective"] == "uniform" else None
    make = partial(
        estimate_prototypes,
        size["C"],
        size["D"],
        objective=size["objective"],
        effort=effort,
        trace=kept,
        cache=False,
        device=device,
    )

    def anew() -> Prototypes:
        trace.clear()
        return make()

    make(max_passes=2)  # compiles
    return _described(anew, lambda: {"passes_to_one_percent": passes_to_one_percent(size, trace)})


def passes_to_one_percent(size: Size, trace: Trace) -> float | None:
    """Passes until 99 % of the way from the start to the best L_uni known; None if that is not known or not reached."""
    best = BEST_KNOWN.get((size["C"], size["D"]))
    if best is None or not trace:
        return None
    goal = best + 0.01 * (trace[0][2] - best)
    return next((passes for passes, _, value in trace if value <= goal), None)


def descent(given: Inputs) -> Setup:
    """The paper's gradient descent with its settings."""
    size, device = given
    if size["objective"] != "uniform":
        raise Unavailable("the descent minimises L_uni only")
    if size["C"] > LONG_DESCENT:
        raise Unavailable(f"its 1,000 steps take too long above C = {LONG_DESCENT:,}")
    return _described(
        lambda: estimate_prototypes(size["C"], size["D"], method="sgd", form="eq5", cache=False, device=device), dict
    )


def authors_file(given: Inputs) -> Setup:
    """The authors' published prototypes: the time is that of reading and measuring them."""
    size, _ = given
    if GIVEN.published is None:
        raise Unavailable("--published names no folder with the authors' files")
    file = GIVEN.published / f"{size['C']}centers_{size['D']}dim.pth"
    if not file.is_file():
        raise Unavailable(f"the authors published no {file.name}, or it is not in the folder")
    return _described(lambda: load_prototypes(file), dict)


def _described(make: Callable[[], Prototypes], more: Callable[[], Record]) -> Setup:
    found: list[Prototypes] = []

    def call(_: int) -> None:
        found[:] = [make()]

    def facts() -> Record:
        quality, known = found[0].quality, {"method": found[0].method, "passes": found[0].passes}
        known |= {"uniformity": quality.uniformity, "uniformity_bound": quality.uniformity_bound}
        return known | {"max_cosine": quality.max_cosine, "max_cosine_bound": quality.max_cosine_bound} | more()

    return Setup(call, facts=facts)


def sizes(objective: str, *shapes: tuple[int, int]) -> list[Size]:
    return [{"C": c, "D": d, "objective": objective} for c, d in shapes]


QUICK = ((100, 25), (200, 50), (1_000, 64), (1_000, 512))
SHARP = ((100, 3), (200, 25), (1_000, 64), (1_000, 512))
ESTIMATE_PROTOTYPES = Comparison(
    op="estimate_prototypes",
    sizes={
        "smoke": [*sizes("uniform", (400, 64)), *sizes("max_cosine", (64, 32))],
        "small": [*sizes("uniform", *QUICK), *sizes("max_cosine", *SHARP)],
        "full": [
            *sizes("uniform", *QUICK, (100, 10), (200, 25), (5_000, 128), (10_000, 512)),
            *sizes("max_cosine", *SHARP, *((100, d) for d in (5, 10, 16, 25, 32)), (200, 50)),
        ],
    },
    inputs=lambda size, device: (size, device),
    providers={
        "fastproto, best": Provider(partial(search, "best"), warm=True),
        "fastproto, normal": Provider(partial(search, "normal"), warm=True),
        "the paper's descent": Provider(descent, small=200, warm=True),
        "authors' file": Provider(authors_file, serial=True),
    },
    slow=0.5,
    serial_part="below C·D = 4 million everything but the passes takes one thread",
)


def one_pass(given: Inputs) -> Setup:
    """The mean of a few passes of the search: potential, L-BFGS, line search."""
    (size, device), passes = given, 6
    start, budget = random_start(size["C"], size["D"], 0).float().to(device), Budget()
    minimise(start, 2.0, budget, passes=passes, tolerance=0.0)
    return Setup(lambda _: minimise(start, 2.0, Budget(), passes=passes, tolerance=0.0), units=budget.spent)


SEARCH_PASS = Comparison(
    op="search_pass",
    sizes={
        "smoke": [{"C": 250, "D": 64}],
        "small": [{"C": c, "D": 64} for c in (250, 500, 1_000, 2_000, 4_000)],
        "full": [{"C": c, "D": 64} for c in (250, 500, 1_000, 2_000, 4_000, 10_000)],
    },
    inputs=lambda size, device: (size, device),
    providers={"fastproto": Provider(one_pass)},
    work=lambda size: Work(flops=3.0 * size["C"] ** 2 * size["D"], bytes=8.0 * size["C"] * size["D"]),
    serial_part=IN_TURN,
)


@compared(ESTIMATE_PROTOTYPES)
def test_estimate_prototypes(case: Case, row: Row) -> None:
    row(case)


@compared(SEARCH_PASS)
def test_search_pass(case: Case, row: Row) -> None:
    row(case)
