"""What solve takes and refuses: every form of a matrix, rectangles, options, previous results."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from fastproto import assign, solve
from fastproto.assignment.inputs import Method, choose

from ..helpers import unit_rows
from .instances import METHODS, assert_cheapest

BASE = np.random.default_rng(0).uniform(0, 1, (7, 7))
WHOLE = 20_000_000 + np.random.default_rng(1).integers(0, 20, (7, 7))


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
def test_every_form_of_a_matrix_without_loss(given: Any, method: Method) -> None:
    exact = given.detach().double().numpy() if isinstance(given, torch.Tensor) else np.array(given).astype(np.float64)
    before = exact.copy()
    first = solve(given, method=method)
    assert_cheapest(first, exact)
    again = solve(given, method=method, previous=first)
    assert_cheapest(again, exact)
    assert again.method == "previous" and again.changed == 0
    now = given.detach().double().numpy() if isinstance(given, torch.Tensor) else np.array(given).astype(np.float64)
    assert np.array_equal(now, before)


def test_a_reason_counts_classes_or_rows_and_columns() -> None:
    assert assign(unit_rows(5, 3), unit_rows(5, 3)).reason == "fewer than 128 classes"
    assert solve(torch.rand(5, 9)).reason == "fewer than 1000 rows or columns"
    assert choose("auto", 128, 128, "classes") == ("column_generation", "at least 128 classes")
    assert choose("auto", 3000, 3000, "rows", "columns") == ("column_generation", "at least 3000 rows and columns")


def test_an_array_that_cannot_be_written_and_one_that_torch_shares() -> None:
    fixed = BASE.copy()
    fixed.flags.writeable = False
    assert_cheapest(solve(fixed), BASE)
    shared = torch.from_numpy(BASE.copy())
    old = solve(np.random.default_rng(5).uniform(0, 1, (7, 7)))
    for method in METHODS:
        assert_cheapest(solve(shared, previous=old, method=method), BASE)
        assert np.array_equal(shared.numpy(), BASE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 5), (5, 1), (30, 31), (40, 9), (3, 200), (200, 3)])
def test_rectangles_as_scipy_solves_them(shape: tuple[int, int], method: Method) -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, -5.0, 1e6):
        cost = rng.uniform(0, 1, shape) + shift
        first = solve(cost, method=method)
        assert_cheapest(first, cost)
        again = solve(cost, previous=first, method=method)
        assert again.method == "previous" and again.changed == 0
        other = cost + rng.uniform(0, 0.3, shape)
        found = solve(other, previous=first, method=method)
        assert_cheapest(found, other)
        assert found.changed == int((found.permutation != first.permutation).sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_match(shape: tuple[int, int], method: Method) -> None:
    for cost in (np.zeros(shape), torch.zeros(shape)):
        found = solve(cost, method=method)
        assert found.permutation.tolist() == [-1] * shape[0] and found.prices.tolist() == [0.0] * shape[1]
        assert found.certified and found.objective == found.gap == 0
        assert solve(cost, previous=found, method=method).changed == 0


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
        ([[1, 2], [10**400, 3]], ValueError, r"overflows float64; expected at most 1e\+300"),
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
        ({"method": "greedy"}, ValueError, "method is 'greedy'; expected one of auto, dense, lapjv, column_generation"),
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


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_means_and_prototypes_of_a_type_that_is_refused(dtype: torch.dtype) -> None:
    whole, plain = torch.ones(3, 2).to(dtype), torch.ones(3, 2)
    with pytest.raises(TypeError, match=rf"class_means is a {dtype} tensor; expected a floating-point"):
        assign(whole, plain)
    with pytest.raises(TypeError, match=rf"prototypes is a {dtype} tensor; expected a floating-point"):
        assign(plain, whole)
