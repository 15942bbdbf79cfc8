"""Figures 3a and 3c: the search for prototypes and the cost of the assignment. No data set is needed."""

from __future__ import annotations

import statistics
import time
from typing import Literal, get_args

import torch

from fastproto.assignment import assign
from fastproto.prototypes import estimate_prototypes
from lib.repository import Record

Solver = Literal["dense", "column_generation"]
SUBSETS = (10, 25, 50, 100)
STEPS = (1, 10, 100, 1000)
CLASSES = (100, 200, 500, 1000, 2000, 5000)


def figure3a(
    size: tuple[int, int] = (100, 10), steps: tuple[int, ...] = STEPS, subsets: tuple[int, ...] = SUBSETS
) -> list[Record]:
    """L_uni after steps of the paper's descent, by the number of rows that move in a step; and fastproto's own end."""
    print(f"{size[0]} points in {size[1]} dimensions: L_uni (t = 2) over the paper's descent, lr 0.1")
    print(f"{'rows of a step':>15}" + "".join(f"{count:>7} steps" for count in steps))
    rows: list[Record] = []
    for subset in subsets:
        reached = []
        for count in steps:
            found = estimate_prototypes(*size, method="sgd", subset_size=subset, iterations=count, cache=False)
            reached.append(found.quality.uniformity)
            rows.append({"subset": subset, "steps": count, "uniformity": reached[-1]})
        print(f"{subset:>15}" + "".join(f"{value:>13.5f}" for value in reached), flush=True)
    best = estimate_prototypes(*size, effort="best")
    rows.append({"method": best.method, "uniformity": best.quality.uniformity})
    print(f"fastproto, {best.method}: {best.quality.uniformity:.5f}. The paper's values for Figure 3a: not available.")
    return rows


def figure3c(classes: tuple[int, ...] = CLASSES, dim: int = 64, repeats: int = 3) -> list[Record]:
    """Seconds of one assignment by the number of classes, from random class means and no previous assignment."""
    print(f"seconds of one assignment, D = {dim}, median of {repeats}, {torch.get_num_threads()} threads")
    print(f"{'C':>7}{'dense':>12}{'column_generation':>20}")
    rows: list[Record] = []
    for count in classes:
        generator = torch.Generator().manual_seed(count)
        means, prototypes = torch.randn(2, count, dim, generator=generator)
        prototypes = torch.nn.functional.normalize(prototypes, dim=1)
        cells = []
        for method in get_args(Solver):
            assign(means, prototypes, method=method)  # compiles
            seconds = statistics.median(_seconds(means, prototypes, method) for _ in range(repeats))
            rows.append({"classes": count, "dim": dim, "method": method, "seconds": seconds})
            cells.append(seconds)
        print(f"{count:>7}{cells[0]:>12.4f}{cells[1]:>20.4f}", flush=True)
    print("The paper's values for Figure 3c: not available.")
    return rows


def _seconds(means: torch.Tensor, prototypes: torch.Tensor, method: Solver) -> float:
    began = time.perf_counter()
    assign(means, prototypes, method=method)
    return time.perf_counter() - began
