"""The assignment with its passes on the kernels, against SciPy and the CPU's: on a GPU, or under the interpreter."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastproto import assign, reference
from fastproto.assignment import Assignment
from fastproto.assignment.column_generation import search
from fastproto.assignment.match_means import factor_scores
from fastproto.assignment.procrustes import search_rotations
from fastproto.assignment.scores_cpu import CpuFactorScores
from fastproto.assignment.scores_gpu import MAX_PLACES, GpuFactorScores
from fastproto.backend import use_backend

from ..helpers import unit_rows
from ..kernel_device import DEVICE  # it skips the file where the kernels cannot run
from .instances import KINDS, assert_optimal, instance

# isort: split
from fastproto_kernels.top_scores import MAX_K


def matched(means: Tensor, prototypes: Tensor, **options: Any) -> Assignment:
    """By column generation with its passes on the kernels; tensors on the CPU, where they are checked."""
    with use_backend("triton"):
        found = assign(means.to(DEVICE), prototypes.to(DEVICE), method="column_generation", **options)
    assert "passes on triton: asked for" in found.reason or found.method == "previous"
    assert found.permutation.device == found.prices.device == means.to(DEVICE).device
    return replace(found, permutation=found.permutation.cpu(), prices=found.prices.cpu())


def both(means: Tensor, prototypes: Tensor) -> tuple[GpuFactorScores, CpuFactorScores]:
    norms = torch.linalg.vector_norm(means, dim=1, dtype=torch.float64)
    with use_backend("triton"):
        ours, where = factor_scores(means.to(DEVICE), norms.to(DEVICE), prototypes.to(DEVICE))
    assert isinstance(ours, GpuFactorScores) and where == "passes on triton: asked for"
    with use_backend("torch"):
        theirs, where = factor_scores(means, norms, prototypes)
    assert isinstance(theirs, CpuFactorScores) and where == "passes on torch: asked for"
    return ours, theirs


def in_blocks(means: Tensor, prototypes: Tensor, block_elements: int) -> GpuFactorScores:
    """With float64 scores in blocks of so many numbers."""
    norms = torch.linalg.vector_norm(means, dim=1, dtype=torch.float64)
    return GpuFactorScores(means.to(DEVICE), norms.to(DEVICE), prototypes.to(DEVICE), block_elements)


@pytest.mark.parametrize(
    ("kind", "c", "d"), [(kind, 40, 8) for kind in KINDS] + [(kind, 33, 2) for kind in ("near", "ties", "duplicates")]
)
def test_optimal_and_certified_as_on_the_processor(kind: str, c: int, d: int) -> None:
    means, prototypes = instance(c, d, 0, kind)
    found = matched(means, prototypes)
    assert_optimal(found, reference.scores(means.double(), prototypes.double()))
    with use_backend("torch"):
        plain = assign(means, prototypes, method="column_generation")
    floors = found.rounding_floor + plain.rounding_floor
    assert abs(found.objective - plain.objective) <= 1e-12 * c + floors
    assert abs(found.gap - plain.gap) <= floors and found.certified == plain.certified


@pytest.mark.parametrize("c", [1, 2, 3])
def test_a_few_classes(c: int) -> None:
    means, prototypes = instance(c, 5, 0, "random")
    assert_optimal(matched(means, prototypes), reference.scores(means.double(), prototypes.double()))


def test_a_warm_start_and_an_unchanged_one() -> None:
    means, prototypes = instance(24, 8, 1, "clustered")
    first = matched(means, prototypes)
    again = matched(means, prototypes, previous=first)
    assert again.method == "previous" and again.changed == 0 and again.passes == 1
    moved = torch.nn.functional.normalize(means, dim=1) + 0.1 * unit_rows(24, 8)
    found = matched(moved, prototypes, previous=first)
    assert_optimal(found, reference.scores(moved.double(), prototypes.double()))
    assert found.changed == int((found.permutation != first.permutation).sum()) > 0


def test_a_warm_start_with_unseen_rows() -> None:
    means, prototypes = instance(40, 8, 1, "zero rows")
    unseen = ~means.any(1)
    assert unseen.any() and not unseen.all()
    first = matched(means, prototypes)
    again = matched(means, prototypes, previous=first)
    assert again.method == "previous" and again.changed == 0 and again.passes == 1
    assert again.objective == pytest.approx(first.objective, rel=1e-12)
    dearer = first.prices.clone()
    dearer[first.permutation[unseen]] += 1.0  # a left-over column has the lowest price: its gap is seen
    assert_optimal(
        matched(means, prototypes, previous=replace(first, prices=dearer)),
        reference.scores(means.double(), prototypes.double()),
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_are_the_numbers_they_are(dtype: torch.dtype) -> None:
    means, prototypes = (x.to(dtype) for x in instance(40, 6, 0, "random"))
    assert_optimal(matched(means, prototypes), reference.scores(means.double(), prototypes.double()))


@pytest.mark.parametrize("kind", ["random", "collapsed", "scaled"])
def test_what_the_passes_say_is_within_their_margin(kind: str) -> None:
    means, prototypes = instance(70, 20, 2, kind)
    scores, plain = both(means, prototypes)
    truth = reference.scores(means.double(), prototypes.double()).numpy()
    prices = scores.column_shift + scores.spread * np.random.default_rng(0).standard_normal(70)
    for ours, theirs in ((scores.spread, plain.spread), (scores.mean, plain.mean), (scores.magnitude, plain.magnitude)):
        assert ours == pytest.approx(theirs, rel=1e-2 if ours == scores.spread else 1e-9)
    assert np.allclose(scores.column_shift, plain.column_shift, rtol=0, atol=1e-12 * scores.magnitude)
    assert np.abs(truth).max() <= scores.magnitude
    margin = scores.margin(prices)
    assert margin.shape == (70,) and margin.max() < 1e-3 * scores.spread
    best = np.sort(truth - prices, axis=1)[:, ::-1]
    values, indices = scores.top(prices, 5)
    assert values.dtype == np.float64 and indices.dtype == np.int32
    assert (np.abs(values - best[:, :5]) <= margin[:, None]).all()
    assert (np.abs(values - np.take_along_axis(truth - prices, indices, 1)) <= margin[:, None]).all()
    mass = scores.column_mass(prices, 0.3 * scores.spread, 2)
    power = np.exp((truth - prices - best[:, :1])[::2] / (0.3 * scores.spread))
    assert np.allclose(mass, (power / power.sum(1, keepdims=True)).sum(0), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("k", [3, 50])
@pytest.mark.parametrize(
    "some", [slice(None), slice(None, None, 3), np.array([30, 2, 17])], ids=["all", "third", "few"]
)
def test_lists_above_a_floor_of_some_rows(k: int, some: Any) -> None:
    """50 is more than the kernel keeps; 41 columns, or none, or all are above the floor of a row."""
    means, prototypes = instance(56, 6, 3, "random")
    scores = in_blocks(means, prototypes, 160)  # two rows
    truth = reference.scores(means.double(), prototypes.double()).numpy()
    best = np.sort(truth, axis=1)[:, ::-1]
    floor = (best[:, 40] + best[:, 41]) / 2
    floor[2], floor[3] = np.inf, -np.inf
    values, indices = scores.top(np.zeros(56), k, floor, some)
    expected = np.where(best[:, :k] >= floor[:, None], best[:, :k], -np.inf)[some]
    rows = np.arange(56)[some]
    there = indices >= 0
    assert (there == np.isfinite(expected)).all() and np.isneginf(values[~there]).all()
    margin = np.broadcast_to(scores.margin(np.zeros(56))[rows, None], values.shape)
    assert (np.abs(values[there] - expected[there]) <= margin[there]).all()
    found = truth[rows[:, None], indices]
    assert (np.abs(found[there] - values[there]) <= margin[there]).all()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in indices)
    every, _ = scores.top(np.zeros(56), k, None, some)
    assert (np.abs(every - best[some][:, :k]) <= margin).all()


@pytest.mark.parametrize("kind", ["clustered", "scaled"])
def test_recheck_finds_the_gap(kind: str) -> None:
    means, prototypes = instance(20, 5, 2, kind)
    with use_backend("torch"):
        found = assign(means, prototypes)
    scores = in_blocks(means, prototypes, 1000)  # 200 pairs
    columns, prices = found.permutation.numpy(), found.prices.numpy()
    truth = reference.scores(means.double(), prototypes.double()).numpy()
    for own, more in ((columns, 0.0), (columns, 0.1), (np.roll(columns, 1), 0.1)):
        dearer = prices + more * scores.spread * np.random.default_rng(0).random(20)
        reduced = truth - dearer
        mine = truth[np.arange(20), own]
        gap = float((reduced.max(1) - (mine - dearer[own])).sum())
        known = scores.recheck(own, dearer, 20)
        assert known is not None
        assert known == pytest.approx((gap, mine.sum()), rel=1e-12, abs=1e-12)
        for places in (1, 4):  # rows with more columns than places are looked at whole
            assert scores.recheck(own, dearer, places) == pytest.approx(known, rel=1e-12, abs=1e-12)
    scores = in_blocks(means, prototypes, 19)  # not even one row
    assert scores.recheck(columns, prices, 1) is None


def test_exact_scores_are_float64() -> None:
    means, prototypes = instance(30, 20, 4, "scaled")
    scores = in_blocks(means, prototypes, 100)  # 5 pairs
    truth = reference.scores(means.double(), prototypes.double()).numpy()
    rows, columns = (np.random.default_rng(i).integers(0, 30, 33).astype(np.int32) for i in range(2))
    close: Any = {"rtol": 1e-14, "atol": 1e-15 * scores.magnitude}
    assert np.allclose(scores.exact(rows, columns), truth[rows, columns], **close)
    assert np.allclose(scores.exact_rows(rows.astype(np.int64)), truth[rows], **close)


def test_the_constant_is_what_the_kernel_keeps() -> None:
    assert MAX_PLACES == MAX_K


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation makes.

    Under the interpreter bytes are not counted, as which it copies memory, nor are int64 numbers: a problem that is
    small enough for it has fewer scores than the kernel has keys.
    """

    elements = 0
    ignored = (torch.uint8, torch.int64) if DEVICE.type == "cpu" else ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(x, Tensor) and x.dtype not in self.ignored:
                self.elements = max(self.elements, x.numel())
        return made


def test_no_tensor_has_the_size_of_the_matrix() -> None:
    c, d, block_elements = (120, 4, 1 << 11) if DEVICE.type == "cpu" else (3000, 4, 1 << 14)
    means, prototypes = instance(c, d, 0, "clustered")
    with Largest() as seen:  # type: ignore[no-untyped-call]  # torch's own class has no types
        scores = in_blocks(means, prototypes, block_elements)  # the bound on the float64 scores of crowded rows
        found = search(scores, None, None)
    assert 0 <= found.gap <= 1e-6 * c * scores.spread
    # the largest are the pairs of the lists (24 and the previous one per row) with their rows, and the kernel's keys
    assert c * d < seen.elements < c * c / 2


def test_tensors_on_two_devices_are_an_error() -> None:
    means, prototypes = instance(10, 4, 0, "random")
    with pytest.raises(ValueError, match="assign got tensors on cpu, meta; expected one device"):
        factor_scores(means, torch.ones(10), prototypes.to("meta"))


@pytest.mark.parametrize("unseen", [False, True])
def test_align_on_the_kernels(unseen: bool) -> None:
    """The same turn as on the CPU; every assignment inside runs on the kernels."""
    means, prototypes = instance(10, 3, 0, "random")
    if unseen:
        means[::5] = 0
    by_columns = partial(assign, method="column_generation")
    with use_backend("triton"):
        ours = search_rotations(means.to(DEVICE), prototypes.to(DEVICE), starts=2, assigner=by_columns)
    with use_backend("torch"):
        plain = search_rotations(means, prototypes, starts=2, assigner=by_columns)
    assert ours.rotation.device == means.to(DEVICE).device
    torch.testing.assert_close(ours.rotation.cpu(), plain.rotation, rtol=0, atol=1e-6)
    assert ours.assignment.permutation.tolist() == plain.assignment.permutation.tolist()
    assert ours.assignment.certified and ours.assignment.objective == pytest.approx(plain.assignment.objective)
    assert "passes on triton" in ours.assignment.reason or ours.assignment.method == "previous"
