"""What solve takes and refuses: every form of a matrix, forbidden pairs, rectangles, options; values that are exact."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from fastproto import assign, solve
from fastproto.assignment import Assignment

from ..helpers import unit_rows

Array = np.ndarray[Any, Any]
METHODS = ["auto", "dense", "column_generation"]
BASE = np.random.default_rng(0).uniform(0, 1, (7, 7))
WHOLE = 20_000_000 + np.random.default_rng(1).integers(0, 20, (7, 7))


def check(found: Assignment, cost: Array) -> None:
    """As cheap as SciPy's, and proved by prices that anyone can check; the gap is that of the prices."""
    rows, columns = linear_sum_assignment(cost)
    best = math.fsum(cost[rows, columns])
    n, m = cost.shape
    permutation, prices = found.permutation.numpy(), found.prices.numpy()
    mine = np.flatnonzero(permutation >= 0)
    assert permutation.shape == (n,) and prices.shape == (m,) and permutation.dtype == np.int64
    assert len(set(permutation[mine])) == len(mine) == min(n, m) and set(permutation[permutation < 0]) <= {-1}
    assert math.fsum(cost[mine, permutation[mine]]) == pytest.approx(
        best, rel=1e-12, abs=1e-12 * np.ptp(prices) + 1e-300
    )
    assert found.objective == pytest.approx(best, rel=1e-12) and found.certified
    value = (-cost - prices).max(1)
    if n > m:
        value = np.maximum(value, 0)
    if n < m:
        assert prices.min() == 0 and np.delete(prices, permutation).max() <= 1e-12 * np.abs(cost).max()
    gap = value.sum() + prices.sum() + best
    assert gap == pytest.approx(found.gap, abs=found.rounding_floor + 1e-300)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "given",
    [
        BASE.tolist(),
        [[Fraction(1, 3), 2], [True, 0.5]],
        [[2**60, 2**70], [0, 1]],
        WHOLE,
        WHOLE.tolist(),
        tuple(map(tuple, WHOLE.tolist())),
        2.0e7 + (20 * BASE).round(),
        1.7e9 + 60 * BASE,
        (1.7e9 + 60 * BASE).tolist(),
        BASE[::-1],
        BASE[:, ::-1],
        np.asfortranarray(BASE),
        BASE[::2, ::3],
        BASE.astype(">f8"),
        BASE.astype(">f4"),
        BASE.astype(np.float16),
        BASE.astype(np.longdouble),
        (1000 * BASE).astype(np.uint16),
        (2**53 - 1 - WHOLE).astype(np.uint64),
        WHOLE - 2**53,
        (100 * BASE).astype(np.int8),
        BASE < 0.5,
        (BASE < 0.5).tolist(),
        BASE.astype(object),
        torch.from_numpy(BASE),
        torch.from_numpy(BASE).float().T,
        torch.from_numpy(BASE).half(),
        torch.from_numpy(BASE).bfloat16(),
        torch.from_numpy(BASE).requires_grad_(),
        torch.from_numpy(WHOLE),
        torch.from_numpy(BASE) < 0.5,
        torch.from_numpy((2**53 - 1 - WHOLE).astype(np.uint64)),
        torch.nn.Parameter(torch.from_numpy(BASE)),
        [np.float32(0.1) * np.ones(2), np.array([1, 2])],
        np.zeros((4, 4)),
        np.full((3, 3), 5e-324),
    ],
    ids=lambda given: f"{type(given).__name__}-{getattr(given, 'dtype', '')}",
)
def test_every_form_of_a_matrix_without_loss(given: Any, method: str) -> None:
    exact = given.detach().double().numpy() if isinstance(given, torch.Tensor) else np.array(given).astype(np.float64)
    before = exact.copy()
    first = solve(given, method=method)
    check(first, exact)
    again = solve(given, method=method, previous=first)
    check(again, exact)
    assert again.method == "previous" and again.changed == 0
    now = given.detach().double().numpy() if isinstance(given, torch.Tensor) else np.array(given).astype(np.float64)
    assert np.array_equal(now, before)


def test_an_array_that_cannot_be_written_and_one_that_torch_shares() -> None:
    fixed = BASE.copy()
    fixed.flags.writeable = False
    check(solve(fixed), BASE)
    shared = torch.from_numpy(BASE.copy())
    old = solve(np.random.default_rng(5).uniform(0, 1, (7, 7)))
    for method in METHODS:
        check(solve(shared, previous=old, method=method), BASE)
        assert np.array_equal(shared.numpy(), BASE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 5), (5, 1), (30, 31), (40, 9), (3, 200), (200, 3)])
def test_rectangles_as_scipy_solves_them(shape: tuple[int, int], method: str) -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, -5.0, 1e6):
        cost = rng.uniform(0, 1, shape) + shift
        first = solve(cost, method=method)
        check(first, cost)
        again = solve(cost, previous=first, method=method)
        assert again.method == "previous" and again.changed == 0
        other = cost + rng.uniform(0, 0.3, shape)
        found = solve(other, previous=first, method=method)
        check(found, other)
        assert found.changed == int((found.permutation != first.permutation).sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(shape: tuple[int, int], method: str) -> None:
    for cost in (np.zeros(shape), torch.zeros(shape)):
        found = solve(cost, method=method)
        assert found.permutation.tolist() == [-1] * shape[0] and found.prices.tolist() == [0.0] * shape[1]
        assert found.certified and found.objective == found.gap == 0
        assert solve(cost, previous=found, method=method).changed == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_forbidden_pair_is_never_taken(method: str) -> None:
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
                check(found, cost)


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
def test_no_permutation_avoids_the_forbidden_pairs(cost: Any, method: str) -> None:
    with pytest.raises(ValueError, match="every permutation of cost uses a pair at inf; expected one that avoids"):
        solve(cost, method=method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("big", [1e6, 1e9, 1e12, 1e30])
@pytest.mark.parametrize("size", [6, 60])
def test_forbidden_pairs_as_big_numbers_with_a_previous_result(size: int, big: float, method: str) -> None:
    """The spread of all costs would make any gap look small: the old permutation must not pass for optimal."""
    rng = np.random.default_rng(4)
    blocked = rng.random((size, size)) < 0.4
    np.fill_diagonal(blocked, False)
    first, second = (np.where(blocked, big, rng.uniform(0, 1, (size, size))) for _ in range(2))
    old = solve(first, method=method)
    check(old, first)
    found = solve(second, previous=old, method=method)
    check(found, second)
    assert found.method != "previous" and found.rounding_floor < 1e-9
    for prices in (old.prices.float(), torch.full_like(old.prices, 1e12), 1e300 * torch.randn_like(old.prices)):
        check(solve(second, previous=replace(old, prices=prices), method=method), second)


@pytest.mark.parametrize("method", METHODS)
def test_a_column_apart_and_rows_apart(method: str) -> None:
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
    check(exact, moved)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"cost has shape \[2\]; expected a matrix"),
        (np.float64(3), ValueError, r"cost has shape \[\]; expected a matrix"),
        (np.zeros((2, 2, 2)), ValueError, r"cost has shape \[2, 2, 2\]; expected a matrix"),
        ([[1.0, 2.0], [3.0]], TypeError, "NumPy cannot read .*; expected rows of one length"),
        ([[1, None], [2, 3]], TypeError, "cost is a list of object; expected real numbers"),
        ([["1", "2"], ["3", "4"]], TypeError, "cost is a list of <U1; expected real numbers"),
        (None, TypeError, "cost is a NoneType; expected real numbers"),
        (csr_array(BASE), TypeError, "expected real numbers in a matrix"),
        (BASE.astype(complex), TypeError, "complex128; expected real numbers"),
        (torch.zeros(2, 2, dtype=torch.complex64), TypeError, "complex64.*; expected real numbers"),
        (torch.eye(3).to_sparse(), TypeError, "sparse.*; expected real numbers in a dense tensor"),
        (torch.zeros(2, 2, device="meta"), TypeError, "on the meta device; expected real numbers"),
        (BASE.astype("m8[s]"), TypeError, "timedelta64.*; expected real numbers"),
        (np.ma.masked_less(BASE, 0.5), TypeError, r"masked array; expected a plain one: pass cost.filled"),
        ([[1, float("nan")], [2, 3]], ValueError, r"cost holds NaN \(first in row 0\)"),
        (
            [[1, 2], [float("-inf"), 3]],
            ValueError,
            r"cost holds -inf \(first in row 1\); expected finite",
        ),
        ([[1, 2], [1e305, 3]], ValueError, r"cost holds 1e\+305; expected at most 1e\+300"),
        ([[1, 2], [-1e305, math.inf]], ValueError, r"cost holds -1e\+305; expected at most 1e\+300"),
        ([[1, 2], [10**400, 3]], ValueError, r"float64 does not hold; expected at most 1e\+300"),
    ],
)
def test_what_is_refused(cost: Any, error: type[Exception], message: str) -> None:
    for method in METHODS:
        with pytest.raises(error, match=message):
            solve(cost, method=method)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_limit": -1}, ValueError, "time_limit is -1; expected seconds >= 0, or None"),
        ({"time_limit": math.nan}, ValueError, "time_limit is nan; expected seconds"),
        ({"time_limit": math.inf}, ValueError, "time_limit is inf; expected seconds"),
        ({"time_limit": "3"}, ValueError, "time_limit is 3; expected seconds"),
        ({"tolerance": -1e-3}, ValueError, "tolerance is -0.001; expected a number >= 0"),
        ({"tolerance": math.inf}, ValueError, "tolerance is inf; expected a number >= 0"),
        ({"tolerance": None}, ValueError, "tolerance is None; expected a number >= 0"),
        ({"method": "greedy"}, ValueError, "method is 'greedy'; expected one of auto, dense, column_generation"),
        ({"previous": 3}, TypeError, "previous is a int; expected an Assignment"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        solve(BASE, **options)
    with pytest.raises(error, match=message):
        assign(torch.randn(7, 3), unit_rows(7, 3), **options)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_a_previous_of_another_shape(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(9).uniform(0, 1, shape)
    found = solve(cost)
    with pytest.raises(ValueError, match=r"previous\.permutation is torch.int64 \[7\]; expected int64"):
        solve(cost, previous=solve(BASE))
    with pytest.raises(ValueError, match=r"previous\.permutation is torch.int64 .*; expected an int64 permutation"):
        solve(BASE, previous=found)
    twice = found.permutation.clone()
    twice[:] = 0
    with pytest.raises(ValueError, match=r"previous\.permutation matches 1 rows with columns of their own; expected 4"):
        solve(cost, previous=replace(found, permutation=twice))
    with pytest.raises(ValueError, match=r"previous\.prices are torch.float64 \[1\]; expected floating-point"):
        solve(cost, previous=replace(found, prices=torch.zeros(1, dtype=torch.float64)))


def test_costs_beyond_the_sweeps_go_to_the_dense_solver() -> None:
    cost = np.random.default_rng(10).uniform(0, 1e31, (5, 5))
    check(solve(cost), cost)
    with pytest.raises(ValueError, match=r"expected at most 1e\+30, .*method='dense'"):
        solve(cost, method="column_generation")
    cost = 1e299 * (cost / 1e31)
    check(solve(cost), cost)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1e3, 1e9, 1e12, 1e14])
def test_a_long_prototype_certifies_nothing(length: float, method: str) -> None:
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


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_means_and_prototypes_of_a_type_that_is_refused(dtype: torch.dtype) -> None:
    whole, plain = torch.ones(3, 2).to(dtype), torch.ones(3, 2)
    with pytest.raises(TypeError, match=rf"class_means is a {dtype} tensor; expected a floating-point"):
        assign(whole, plain)
    with pytest.raises(TypeError, match=rf"prototypes is a {dtype} tensor; expected a floating-point"):
        assign(plain, whole)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("length", [1e-11, 1.0, 3e4])
def test_means_of_any_length_and_precision(length: float, dtype: torch.dtype, method: str) -> None:
    generator = torch.Generator().manual_seed(1)
    means, prototypes = (torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    means = (length * means.clamp(-2, 2)).to(dtype)
    if not means.any():  # below what float16 holds: classes that were never seen
        return
    prototypes = prototypes.to(dtype)
    found = assign(means, prototypes, method=method)
    q = torch.nn.functional.normalize(means.double(), dim=1, eps=1e-300)
    check(replace(found, objective=-found.objective), -(q @ prototypes.double().T).numpy())
