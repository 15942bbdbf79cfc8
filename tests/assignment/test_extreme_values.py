"""solve and assign where a few values are far from the others: forbidden pairs, offsets, long prototypes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fastproto import assign, solve
from fastproto.assignment.inputs import Method

from .instances import METHODS, assert_cheapest


@pytest.mark.parametrize("method", METHODS)
def test_a_forbidden_pair_is_never_taken(method: Method) -> None:
    rng = np.random.default_rng(3)
    for shape in ((6, 6), (5, 8), (8, 5), (90, 90)):
        cost = rng.uniform(0, 1, shape)
        few = min(shape)
        blocked = rng.random(shape) < 0.7
        blocked[rng.permutation(shape[0])[:few], rng.permutation(shape[1])[:few]] = False
        cost[blocked] = np.inf
        old = solve(rng.uniform(0, 1, shape))  # its permutation may use forbidden pairs
        for previous, limit in ((None, None), (old, None), (None, 0.0), (old, 0.0)):
            found = solve(cost, previous=previous, method=method, time_limit=limit)
            mine = np.flatnonzero(found.permutation.numpy() >= 0)
            assert np.isfinite(cost[mine, found.permutation.numpy()[mine]]).all()
            if limit is None:
                assert_cheapest(found, cost)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "cost",
    [
        [[np.inf]],
        [[1, 2], [np.inf, np.inf]],
        [[1, np.inf], [2, np.inf]],
        [[1, 2, 3], [4, np.inf, np.inf], [5, np.inf, np.inf]],
        [[np.inf, np.inf, np.inf], [1, 2, 3]],
        [[np.inf, 1], [np.inf, 1], [np.inf, 1]],
    ],
)
def test_no_permutation_avoids_the_forbidden_pairs(cost: Any, method: Method) -> None:
    with pytest.raises(ValueError, match="every permutation of cost uses a pair at inf; expected one that avoids"):
        solve(cost, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("big", [1e6, 1e9, 1e12, 1e30])
@pytest.mark.parametrize("size", [6, 60])
def test_forbidden_pairs_as_big_numbers_with_a_previous_result(size: int, big: float, method: Method) -> None:
    """The spread of all costs would make any gap look small: the old permutation must not pass for optimal."""
    rng = np.random.default_rng(4)
    blocked = rng.random((size, size)) < 0.4
    np.fill_diagonal(blocked, False)
    first, second = (np.where(blocked, big, rng.uniform(0, 1, (size, size))) for _ in range(2))
    old = solve(first, method=method)
    assert_cheapest(old, first)
    found = solve(second, previous=old, method=method)
    assert_cheapest(found, second)
    assert found.method != "previous" and found.rounding_floor < 1e-9
    for prices in (old.prices.float(), torch.full_like(old.prices, 1e12), 1e300 * torch.randn_like(old.prices)):
        assert_cheapest(solve(second, previous=replace(old, prices=prices), method=method), second)


@pytest.mark.parametrize("method", METHODS)
def test_a_column_apart_and_rows_apart(method: Method) -> None:
    cost = np.random.default_rng(6).uniform(0, 1, (40, 40))
    plain = solve(cost).permutation
    for apart in (1e6, 1e9, 1e12):
        for index in ((slice(None), 3), (5, slice(None))):
            moved = cost.copy()
            moved[index] += apart
            found = solve(moved, method=method)
            assert found.certified
            # 1e12 keeps four decimals of what is added to it
            kept = cost[np.arange(40), found.permutation.numpy()].sum() - cost[np.arange(40), plain.numpy()].sum()
            assert kept <= 4e-16 * apart * 4


def test_a_certificate_follows_the_costs_that_compete() -> None:
    """One pair at 1e9 leaves scale, gap and floor as they are without it."""
    cost = np.random.default_rng(7).uniform(0, 1, (50, 50))
    plain = solve(cost)
    cost[3, 4] = 1e9
    if int(plain.permutation[3]) == 4:
        cost[3, 4], cost[3, 5] = 0.5, 1e9
    found = solve(cost)
    stale = solve(cost, previous=replace(plain, permutation=plain.permutation.roll(1)))
    assert stale.method != "previous" and stale.permutation.tolist() == found.permutation.tolist()
    assert found.rounding_floor < 2 * plain.rounding_floor
    rough = solve(cost, previous=replace(plain, prices=plain.prices + 1e-3 * torch.rand(50)), tolerance=1e-2)
    assert rough.method == "previous" and 0 < rough.relative_gap < 1e-2


def test_a_tolerance_is_what_may_be_left() -> None:
    rng = np.random.default_rng(8)
    cost = rng.uniform(0, 1, (60, 60))
    old = solve(cost)
    moved = cost + 1e-4 * rng.uniform(0, 1, cost.shape)
    assert solve(moved, previous=old, tolerance=1e-2).method == "previous"
    exact = solve(moved, previous=old, tolerance=0)
    assert exact.method != "previous" and exact.certified
    assert_cheapest(exact, moved)


def test_costs_beyond_the_passes_go_to_the_dense_solver() -> None:
    cost = np.random.default_rng(10).uniform(0, 1e31, (5, 5))
    assert_cheapest(solve(cost), cost)
    with pytest.raises(ValueError, match=r"expected at most 1e\+30, .*method='dense'"):
        solve(cost, method="column_generation")
    cost = 1e299 * (cost / 1e31)
    assert_cheapest(solve(cost), cost)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1e3, 1e9, 1e12, 1e14])
def test_a_long_prototype_certifies_nothing(length: float, method: Method) -> None:
    """Beside it the others look equal; they are told apart all the same."""
    generator = torch.Generator().manual_seed(0)
    means, prototypes = (torch.randn(150, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    prototypes[7] *= length
    means = torch.nn.functional.normalize(means, dim=1)
    found = assign(means, prototypes, method=method)
    scores = (means @ prototypes.T).numpy()
    rows, columns = linear_sum_assignment(scores, maximize=True)
    mine = found.permutation.numpy()
    assert found.objective >= scores[rows, columns].sum() * (1 - 1e-14) - 1e-9
    taken = int(np.flatnonzero(mine == 7)[0])
    others, left = np.delete(np.arange(150), taken), np.delete(np.arange(150), 7)
    rest = scores[np.ix_(others, left)]  # whoever takes the long one, the others are matched as well as they can be
    best = rest[linear_sum_assignment(rest, maximize=True)].sum()
    assert scores[others, mine[others]].sum() >= best - 1e-9 - 1e-15 * length
    swapped = mine.copy()
    swapped[others[:2]] = mine[others[:2]][::-1]
    again = assign(means, prototypes, previous=replace(found, permutation=torch.from_numpy(swapped)), method=method)
    assert again.changed or scores[others[:2], swapped[others[:2]]].sum() == pytest.approx(
        scores[others[:2], mine[others[:2]]].sum(), abs=1e-3
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("length", [1e-11, 1.0, 3e4])
def test_means_of_any_length_and_precision(length: float, dtype: torch.dtype, method: Method) -> None:
    generator = torch.Generator().manual_seed(1)
    means, prototypes = (torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    means = (length * means.clamp(-2, 2)).to(dtype)
    if not means.any():  # below what float16 holds: classes that were never seen
        return
    prototypes = prototypes.to(dtype)
    found = assign(means, prototypes, method=method)
    q = torch.nn.functional.normalize(means.double(), dim=1, eps=1e-300)
    assert_cheapest(replace(found, objective=-found.objective), -(q @ prototypes.double().T).numpy())
