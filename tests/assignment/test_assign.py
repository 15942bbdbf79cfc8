"""assign and solve against SciPy, with their certificates recomputed, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fastproto import assign, reference, solve
from fastproto.assignment import Assignment
from fastproto.assignment.inputs import Method
from fastproto.assignment.scores_cpu import KEPT_BYTES

from ..helpers import unit_rows
from .instances import assert_optimal


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 9),
    st.integers(0, 2**31),
    st.sampled_from(["random", "ties", "zero rows", "duplicates", "collapsed", "all zero"]),
)
def test_assign_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(c, d, generator=generator)
    prototypes = torch.nn.functional.normalize(torch.randn(c, d, generator=generator), dim=1)
    if kind == "ties":
        means, prototypes = means.sign(), torch.nn.functional.normalize(prototypes.sign(), dim=1)
    elif kind == "zero rows":
        means[torch.rand(c, generator=generator) < 0.4] = 0
    elif kind == "duplicates":
        means, prototypes = means[torch.arange(c) // 2], prototypes[torch.arange(c) // 3]
    elif kind == "collapsed":
        means = means[:1] + 1e-5 * means
    elif kind == "all zero":
        means = torch.zeros_like(means)
    assert_optimal(assign(means, prototypes), reference.scores(means.double(), prototypes.double()), within=1e-9)


@pytest.mark.parametrize("c", [1, 2, 3, 60])
def test_the_dense_solver_gives_a_certificate(c: int) -> None:
    means, prototypes = torch.randn(c, 8), unit_rows(c, 8)
    found = assign(means, prototypes)
    assert_optimal(found, reference.scores(means.double(), prototypes.double()), within=1e-9)
    assert found.method == "dense"


def test_more_classes_than_a_product_that_is_kept() -> None:
    """From 4,097 classes on each pass makes its products anew; the optimum is known, and far from the others."""
    means = unit_rows(4_200, 32)
    assert 2 * len(means) ** 2 > KEPT_BYTES
    order = torch.randperm(len(means))
    found = assign(means, means[order])
    assert found.certified and torch.equal(order[found.permutation], torch.arange(len(means)))


def test_an_assignment_that_still_holds_costs_one_pass() -> None:
    means, prototypes = torch.randn(50, 6), unit_rows(50, 6)
    first = assign(means, prototypes)
    assert first.changed is None
    again = assign(means * 3, prototypes, previous=first)
    assert (again.method, again.passes, again.changed) == ("previous", 1, 0)
    means = torch.randn(50, 6)
    moved = assign(means, prototypes, previous=first)
    assert moved.method != "previous"
    assert moved.changed == int((moved.permutation != first.permutation).sum()) > 0
    assert_optimal(moved, reference.scores(means.double(), prototypes.double()), within=1e-9)


def test_ties_keep_the_previous_assignment() -> None:
    # Every permutation of a simplex scores the same when all means coincide.
    means, prototypes = torch.ones(5, 4), unit_rows(5, 4)
    old = replace(assign(means, prototypes), permutation=torch.tensor([4, 2, 0, 1, 3]))
    assert assign(means, prototypes, previous=old).permutation.tolist() == [4, 2, 0, 1, 3]


def test_unseen_classes_keep_left_over_prototypes() -> None:
    prototypes = torch.eye(4)
    means = torch.zeros(4, 4)
    means[1] = prototypes[3]  # one class was seen, and wants prototype 3
    old = replace(assign(means, prototypes), permutation=torch.tensor([2, 0, 3, 1]), prices=torch.zeros(4))
    found = assign(means, prototypes, previous=old)
    assert found.permutation.tolist() == [2, 3, 0, 1]  # 0 and 3 keep 2 and 1; class 2 takes what is left


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.int64]))
def test_solve_minimises_any_square_cost(c: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    cost = (torch.randn(c, c, generator=generator, dtype=torch.float64) * 20).to(dtype)
    found = solve(cost)
    assert_optimal(replace(found, objective=-found.objective), -cost.double(), within=1e-9)
    assert solve(cost, previous=found).method == "previous"


def test_solve_takes_numpy() -> None:
    cost = np.random.default_rng(0).random((9, 9))
    found = solve(cost)
    assert found.objective == pytest.approx(cost[np.arange(9), found.permutation.numpy()].sum())


@pytest.mark.parametrize("method", ["dense", "column_generation"])
def test_a_time_limit_gives_an_honest_gap(method: Method) -> None:
    means, prototypes = torch.randn(200, 4), unit_rows(200, 4)
    scores = reference.scores(means.double(), prototypes.double())
    found = assign(means, prototypes, method=method, time_limit=0.0)
    assert found.certified == (method == "dense")  # which has no result before its last
    assert found.certified or found.gap > 0
    assert float(reference.duality_gap(scores, found.permutation, found.prices)) == pytest.approx(found.gap, abs=1e-9)


@pytest.mark.parametrize(
    ("means", "prototypes", "options", "message"),
    [
        (torch.randn(3, 2), torch.randn(4, 2), {}, r"\[3, 2\] and prototypes \[4, 2\]"),
        (torch.full((3, 2), float("nan")), torch.randn(3, 2), {}, "class_means holds NaN"),
        (torch.randn(3, 2), torch.full((3, 2), float("inf")), {}, "prototypes holds NaN or inf"),
        (torch.randn(3, 2), torch.randn(3, 2), {"method": "greedy"}, "'greedy'"),
        (torch.randn(0, 2), torch.randn(0, 2), {}, "at least 1 rows"),
        (torch.randn(3, 2), torch.randn(3, 2), {"tolerance": float("nan")}, "tolerance is nan"),
    ],
)
def test_assign_errors(means: Tensor, prototypes: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(means, prototypes, **options)


@pytest.mark.parametrize(
    ("permutation", "message"),
    [
        ([0, 1], "expected an int64 permutation of 0..2"),
        ([0, 1, 1], "more than once"),
        ([0, 1, 3], "0..2"),
    ],
)
def test_a_previous_that_is_no_permutation(permutation: list[int], message: str) -> None:
    means, prototypes = torch.randn(3, 2), unit_rows(3, 2)
    old = replace(assign(means, prototypes), permutation=torch.tensor(permutation))
    with pytest.raises(ValueError, match=message):
        assign(means, prototypes, previous=old)


@pytest.mark.parametrize("method", ["dense", "column_generation"])
@pytest.mark.parametrize(
    "prices", [None, [0.0] * 5, torch.zeros(4), torch.zeros(5, 1), torch.zeros(5, dtype=torch.long)]
)
def test_previous_prices_that_are_none(prices: Any, method: Method) -> None:
    means, prototypes = torch.randn(5, 3), unit_rows(5, 3)
    old = replace(assign(means, prototypes), prices=prices)
    with pytest.raises(ValueError, match=r"previous\.prices are .*; expected floating-point numbers \[5\]"):
        assign(means, prototypes, previous=old, method=method)


def test_numbers_too_large_for_the_passes() -> None:
    means, prototypes = torch.randn(5, 3), unit_rows(5, 3)
    with pytest.raises(ValueError, match=r"prototypes have a row of norm \S+e\+16; expected at most 1e\+15"):
        assign(means, 1e16 * prototypes, method="column_generation")
    with pytest.raises(ValueError, match=r"cost holds 1e\+31; expected at most 1e\+30"):
        solve(torch.full((3, 3), 1e31), method="column_generation")


def test_a_previous_that_is_no_tensor_and_means_that_overflow() -> None:
    means, prototypes = torch.randn(3, 2), unit_rows(3, 2)
    old = replace(assign(means, prototypes), permutation=[0, 1, 2])
    with pytest.raises(ValueError, match=r"previous\.permutation is list; expected an int64 permutation"):
        assign(means, prototypes, previous=old)
    with pytest.raises(ValueError, match="class_means holds NaN or inf"):
        assign(means / 0, prototypes)
    with pytest.raises(ValueError, match=r"class_means row \d has a norm whose square overflows float64"):
        assign(1e200 * means.double(), prototypes)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        (torch.rand(3), ValueError, "square"),
        (torch.tensor([[1.0, float("nan")], [0, 0]]), ValueError, "NaN"),
        (torch.zeros(2, 2, dtype=torch.complex64), TypeError, "real"),
    ],
)
def test_solve_errors(cost: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve(cost)


def test_too_large_for_memory() -> None:
    size = 1_000_000  # 24 TB
    with pytest.raises(ValueError, match=r"1000000 x 1000000 scores need \d+ GiB .*method='column_generation'"):
        assign(torch.randn(size, 2), unit_rows(size, 2), method="dense")


def test_a_result_shares_no_memory_with_the_previous_one() -> None:
    cost, means, prototypes = torch.rand(6, 6, dtype=torch.float64), torch.randn(6, 4), unit_rows(6, 4)
    renewals: list[Callable[[Assignment | None], Assignment]] = [
        lambda previous: solve(cost, previous=previous),
        lambda previous: assign(means, prototypes, previous=previous),
    ]
    for renew in renewals:
        first = renew(None)
        kept = first.permutation.clone(), first.prices.clone()
        again = renew(first)
        assert again.method == "previous"
        again.permutation.zero_()
        again.prices.fill_(7)
        assert torch.equal(first.permutation, kept[0]) and torch.equal(first.prices, kept[1])
