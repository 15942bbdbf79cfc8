"""``linear_sum_assignment`` beside other solvers of a cost matrix: uniform, distances in the plane, whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fastproto.assignment import linear_sum_assignment

from .comparison import Call, Case, Comparison, Provider, Row, Size, Unavailable, Work, compared
from .peers import imported

Costs = npt.NDArray[np.float64]
Solver = Callable[[Costs], Any]
LAPJV_PLANE = 500
"""The largest C at which lapjv is given distances in the plane: its time grows steeply with C there."""
COSTS: dict[str, Callable[[np.random.Generator, int], Costs]] = {
    "uniform": lambda rng, n: rng.random((n, n)),
    "plane": lambda rng, n: np.hypot(*(rng.random((n, 1)) - rng.random(n) for _ in range(2))),
    "whole": lambda rng, n: rng.integers(0, 100, (n, n)).astype(np.float64),
}
"""Uniform in [0, 1); distances between points of the unit square; whole numbers below 100."""


def inputs(size: Size, device: torch.device) -> tuple[str, Costs]:
    return size["costs"], COSTS[size["costs"]](np.random.default_rng(0), size["C"])


def solved(solver: Callable[[], Solver], given: tuple[str, Costs]) -> Call:
    _, costs = given
    solve = solver()
    return lambda _: solve(costs)


def ours() -> Solver:
    return lambda costs: linear_sum_assignment(costs)[1]


def lapjv_within_limit(given: tuple[str, Costs]) -> Call:
    kind, costs = given
    if kind == "plane" and len(costs) > LAPJV_PLANE:
        raise Unavailable(f"costs of the plane are given to it up to C = {LAPJV_PLANE}: the size is the limit")
    return solved(lapjv, given)


def lapjv() -> Solver:
    """It rounds float64 costs to float32 unless told otherwise."""
    solve = imported("lapjv").lapjv
    return lambda costs: solve(costs, force_doubles=True)[0]


def lapx() -> Solver:
    solve = imported("lap", "lapx").lapjvr
    return lambda costs: solve(costs, return_cost=False)[1]


def scipy() -> Solver:
    solve = imported("scipy.optimize").linear_sum_assignment
    return lambda costs: solve(costs)[1]


def sizes(*counts: int) -> list[Size]:
    return [{"C": count, "costs": kind} for kind in COSTS for count in counts]


LINEAR_SUM_ASSIGNMENT = Comparison(
    op="linear_sum_assignment",
    sizes={"smoke": sizes(300), "small": sizes(500, 2_000), "full": sizes(200, 500, 1_000, 2_000, 5_000, 10_000)},
    inputs=inputs,
    providers={
        "fastproto": Provider(partial(solved, ours), devices=("cpu",)),
        "lapx": Provider(partial(solved, lapx), serial=True, warm=True, devices=("cpu",)),
        "lapjv": Provider(lapjv_within_limit, serial=True, warm=True, devices=("cpu",)),
        "SciPy": Provider(partial(solved, scipy), serial=True, warm=True, devices=("cpu",)),
    },
    work=lambda size: Work(bytes=8.0 * size["C"] ** 2),
    serial_part="everything but copies of the matrix and of its rows runs in one thread",
)


@compared(LINEAR_SUM_ASSIGNMENT)
def test_linear_sum_assignment(case: Case, row: Row) -> None:
    row(case)
