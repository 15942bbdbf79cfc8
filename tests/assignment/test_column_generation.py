"""assign and solve by each method on random and degenerate instances, against SciPy, with the gap recomputed."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fastproto import assign, reference, solve
from fastproto.assignment import Assignment, column_generation
from fastproto.assignment import scores_cpu as passes
from fastproto.assignment.column_generation import Search

from ..helpers import unit_rows

KINDS = [
    "random",
    "clustered",
    "near",
    "ties",
    "zero rows",
    "duplicates",
    "same rows",
    "collapsed",
    "scaled",
    "all zero",
    "apart",
    "orthogonal",
]


def instance(c: int, d: int, seed: int, kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def some(share: float) -> Tensor:
        return torch.rand(c, generator=generator) < share

    means, prototypes = normal(c, d), torch.nn.functional.normalize(normal(c, d), dim=1)
    if kind == "clustered":
        means = normal(1, d) + 0.5 * normal(c // 20 + 1, d)[torch.arange(c) // 20] + 0.1 * means
    elif kind == "near":
        means = prototypes[torch.randperm(c, generator=generator)] + 0.2 * means
    elif kind == "ties":
        means, prototypes = means.sign(), torch.nn.functional.normalize(prototypes.sign(), dim=1)
    elif kind == "zero rows":
        means[some(0.5)] = 0
    elif kind == "duplicates":
        means, prototypes = means[torch.arange(c) // 2], prototypes[torch.arange(c) // 3]
    elif kind == "same rows":
        means[some(0.5)] = means[0].clone()
    elif kind == "collapsed":
        means = means[:1] + 1e-5 * means
    elif kind == "scaled":
        means, prototypes = means * normal(c, 1).exp(), prototypes * normal(c, 1).exp()
    elif kind == "all zero":
        means = torch.zeros_like(means)
    elif kind in ("apart", "orthogonal"):  # what the scores' spread is made of cancels, nearly or altogether
        half = torch.arange(d) < d // 2
        means = torch.where(half, means, 1e-3 * means if kind == "apart" else 0.0)
        prototypes = torch.where(half, 0.0, prototypes)
    return means, prototypes


def check(found: Assignment, scores: Tensor) -> None:
    """Optimal, a permutation, and certified by prices that anyone can check."""
    size = len(scores)
    assert sorted(found.permutation.tolist()) == list(range(size))
    best = float(reference.objective(scores, reference.best_assignment(scores)))
    span = max(best - float(scores.mean(1).sum()), 1e-12)
    assert float(reference.objective(scores, found.permutation)) == pytest.approx(best, abs=1e-6 * span + 1e-12)
    assert found.objective == pytest.approx(best, abs=1e-6 * span + 1e-12)
    gap = float(reference.duality_gap(scores, found.permutation, found.prices.double()))
    assert gap == pytest.approx(found.gap, abs=found.rounding_floor)
    assert found.certified, found


SIZES = st.integers(1, 24) | st.integers(1, 48) | st.integers(1, 300)  # mostly small ones, to be quick


@settings(max_examples=500, deadline=None)
@given(SIZES, st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
def test_column_generation_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    means, prototypes = instance(c, d, seed, kind)
    found = assign(means, prototypes, method="column_generation")
    check(found, reference.scores(means.double(), prototypes.double()))


@settings(max_examples=500, deadline=None)
@given(SIZES, st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
def test_dense_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    means, prototypes = instance(c, d, seed, kind)
    found = assign(means, prototypes, method="dense")
    check(found, reference.scores(means.double(), prototypes.double()))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.int64]))
def test_solve_by_column_generation(c: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = (torch.randn(c, c, generator=generator, dtype=torch.float64) * 20).to(dtype)
    found = solve(cost, method="column_generation")
    check(replace(found, objective=-found.objective), -cost.double())
    assert solve(cost, previous=found, method="column_generation").changed == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("c", "d"), [(1100, 40), (300, 2)])
def test_larger_instances(c: int, d: int, kind: str) -> None:
    """Lists shorter than the rows, looks at samples, rounded products: what small instances do not enter."""
    means, prototypes = instance(c, d, 0, kind)
    check(assign(means, prototypes, method="column_generation"), reference.scores(means.double(), prototypes.double()))


@pytest.mark.parametrize("kind", ["random", "clustered", "near", "zero rows", "collapsed"])
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1])
def test_as_large_ones_are_solved(kind: str, noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 4,096 classes products are not kept, and a sample of the rows comes first."""
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)
    monkeypatch.setattr(column_generation, "LOOK_ROWS", 512)
    means, prototypes = instance(800, 40, 2, kind)
    first = assign(means, prototypes, method="column_generation")
    check(first, reference.scores(means.double(), prototypes.double()))
    means = means + noise * means.norm(dim=1, keepdim=True) * unit_rows(800, 40)
    found = assign(means, prototypes, previous=first, method="column_generation")
    check(found, reference.scores(means.double(), prototypes.double()))
    assert found.method == "previous" or noise > 0


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1, 1.0])
def test_a_warm_start_is_as_good_as_a_cold_one(noise: float) -> None:
    means, prototypes = instance(1200, 40, 1, "clustered")
    first = assign(means, prototypes, method="column_generation")
    means = torch.nn.functional.normalize(means, dim=1)
    means = means + noise * unit_rows(1200, 40)
    found = assign(means, prototypes, previous=first, method="column_generation")
    check(found, reference.scores(means.double(), prototypes.double()))
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


@pytest.mark.parametrize("stop", ["time", "interrupt"])
def test_cut_short(stop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    means, prototypes = instance(400, 16, 0, "clustered")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if stop == "interrupt":
        monkeypatch.setattr(Search, "settle", interrupt)
    limit = 0.0 if stop == "time" else None
    found = assign(means, prototypes, method="column_generation", time_limit=limit)
    scores = reference.scores(means.double(), prototypes.double())
    assert sorted(found.permutation.tolist()) == list(range(400)) and not found.certified
    assert found.interrupted == (stop == "interrupt")
    assert float(reference.duality_gap(scores, found.permutation, found.prices)) == pytest.approx(found.gap)
    best = float(reference.objective(scores, reference.best_assignment(scores)))
    assert found.objective + found.gap >= best > found.objective


def test_progress_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assign(*instance(200, 16, 0, "clustered"), method="column_generation", progress=True)
    assert "Sinkhorn step" in capsys.readouterr().err
