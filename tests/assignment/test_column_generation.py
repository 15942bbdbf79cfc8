"""assign and solve by each method on random and degenerate instances, against SciPy, with the gap recomputed."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastproto import assign, reference, solve
from fastproto.assignment.array_types import Floats, Ints, Ints32
from fastproto.assignment.column_generation import search
from fastproto.assignment.scores import EVERY, PerRow, Rows
from fastproto.assignment.scores_cpu import CpuFactorScores
from fastproto.assignment.search_state import Found

from ..helpers import unit_rows
from .instances import KINDS, assert_optimal, instance

SIZES = st.integers(1, 24) | st.integers(1, 48) | st.integers(1, 300)  # mostly small ones, to be quick


@settings(max_examples=500, deadline=None)
@given(SIZES, st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
def test_column_generation_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    means, prototypes = instance(c, d, seed, kind)
    found = assign(means, prototypes, method="column_generation")
    assert_optimal(found, reference.scores(means.double(), prototypes.double()))


@settings(max_examples=500, deadline=None)
@given(SIZES, st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
def test_dense_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    means, prototypes = instance(c, d, seed, kind)
    found = assign(means, prototypes, method="dense")
    assert_optimal(found, reference.scores(means.double(), prototypes.double()))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.int64]))
def test_solve_by_column_generation(c: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = (torch.randn(c, c, generator=generator, dtype=torch.float64) * 20).to(dtype)
    found = solve(cost, method="column_generation")
    assert_optimal(replace(found, objective=-found.objective), -cost.double())
    assert solve(cost, previous=found, method="column_generation").changed == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c", "d"), [(1100, 40), (300, 2)])
def test_larger_instances(c: int, d: int, kind: str) -> None:
    """Lists shorter than the rows, looks at samples, rounded products: what small instances do not enter."""
    means, prototypes = instance(c, d, 0, kind)
    assert_optimal(
        assign(means, prototypes, method="column_generation"), reference.scores(means.double(), prototypes.double())
    )


class LargeScores(CpuFactorScores):
    """Those of more than 4,096 classes, where products are not kept; notes how many rows each pass reads."""

    def __init__(self, means: Tensor, prototypes: Tensor) -> None:
        norms = torch.linalg.vector_norm(means, dim=1, dtype=torch.float64).numpy()
        super().__init__(means, norms, prototypes, kept_bytes=0)
        assert self.blocks.right is not None
        self.rows_read: list[int] = []

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        values, indices = super().top(prices, k, floor, rows, within)
        self.rows_read.append(len(values))
        return values, indices

    def check(self, previous: Ints | None, prices: Floats | None) -> Found:
        """The search with samples of the rows, as for so many classes; its result is optimal."""
        certified = 1e-6 * len(self.left) * self.spread
        found = search(
            self, previous, prices, accept=lambda objective, gap, prices: gap <= certified, sample_rows=len(self.left)
        )
        truth = reference.scores(torch.from_numpy(self.left).double(), torch.from_numpy(self.right).double()).numpy()
        best = truth[linear_sum_assignment(truth, maximize=True)].sum()
        own = truth[np.arange(len(truth)), found.columns[: len(truth)]].sum()
        assert sorted(found.columns) == list(range(truth.shape[1]))
        assert (found.objective, own) == pytest.approx((best, best), abs=certified)
        assert 0 <= found.gap <= certified
        return found


@pytest.mark.parametrize("kind", ["random", "clustered", "near", "zero rows", "collapsed"])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1])
def test_as_large_ones_are_solved(kind: str, noise: float) -> None:
    """A sample of the rows comes first, each eighth or, of a previous result, each sixteenth."""
    means, prototypes = instance(600, 40, 2, kind)
    means = means[means.any(1)]
    cold = LargeScores(means, prototypes)
    first = cold.check(None, None)
    assert cold.rows_read[0] == -(-len(means) // 8) and not first.unchanged
    moved = means + noise * means.norm(dim=1, keepdim=True) * unit_rows(len(means), 40)
    warm = LargeScores(moved, prototypes)
    found = warm.check(first.columns, first.prices)
    assert warm.rows_read[0] == -(-len(means) // 16)
    assert found.unchanged if noise == 0 else noise < 0.1 or not found.unchanged
    if found.unchanged:  # the sample and one pass
        assert warm.rows_read[1:] == [len(means)]


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1, 1.0])
def test_a_warm_start_is_as_good_as_a_cold_one(noise: float) -> None:
    means, prototypes = instance(1200, 40, 1, "clustered")
    first = assign(means, prototypes, method="column_generation")
    means = torch.nn.functional.normalize(means, dim=1)
    means = means + noise * unit_rows(1200, 40)
    found = assign(means, prototypes, previous=first, method="column_generation")
    assert_optimal(found, reference.scores(means.double(), prototypes.double()))
    assert found.changed == int((found.permutation != first.permutation).sum())
    assert (found.method == "previous") == (noise == 0) and (found.changed == 0 if noise == 0 else found.passes > 1)


def test_ties_keep_the_previous_assignment() -> None:
    # Two classes share each mean: within a pair either order is optimal.
    means, prototypes = torch.randn(60, 8)[torch.arange(120) // 2], unit_rows(120, 8)
    first = assign(means, prototypes, method="column_generation")
    swapped = first.permutation.clone()
    swapped[::2], swapped[1::2] = first.permutation[1::2], first.permutation[::2]
    old = replace(first, permutation=swapped, prices=torch.zeros(120))  # prices that prove nothing
    assert assign(means, prototypes, previous=old, method="column_generation").permutation.tolist() == swapped.tolist()


def test_left_over_prototypes_cost_nothing() -> None:
    means, prototypes = instance(400, 16, 0, "zero rows")
    found = assign(means, prototypes, method="column_generation")
    unseen = (means == 0).all(1)
    assert found.prices.min() == 0 and found.prices[found.permutation[unseen]].abs().max() < 1e-12


class InterruptedAt(io.StringIO):
    """A stream at which the user presses Ctrl-C when it shows this."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def write(self, text: str) -> int:
        if self.text in text:
            raise KeyboardInterrupt
        return super().write(text)


@pytest.mark.parametrize("stop", ["time", "Sinkhorn step at 0.15"])
def test_cut_short(stop: str) -> None:
    means, prototypes = instance(400, 16, 0, "clustered")
    with redirect_stderr(InterruptedAt(stop)):
        limit = 0.0 if stop == "time" else None
        found = assign(means, prototypes, method="column_generation", time_limit=limit, progress=True)
    scores = reference.scores(means.double(), prototypes.double())
    assert sorted(found.permutation.tolist()) == list(range(400)) and not found.certified
    assert found.interrupted == (stop != "time")
    assert float(reference.duality_gap(scores, found.permutation, found.prices)) == pytest.approx(found.gap)
    best = float(reference.objective(scores, reference.best_assignment(scores)))
    assert found.objective + found.gap >= best > found.objective


def test_progress_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assign(*instance(200, 16, 0, "clustered"), method="column_generation", progress=True)
    assert "Sinkhorn step" in capsys.readouterr().err
