"""linear_sum_assignment gives what SciPy's function of that name gives, errors included."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment as by_scipy
from scipy.sparse import csr_array

from fastproto.assignment import linear_sum_assignment

from ..scipy_cases import check
from .instances import instance


def test_some_hundred_matrices_of_every_kind() -> None:
    """tests/slow has 10,000."""
    seen = Counter(check(seed) for seed in range(600))
    assert set(seen) == {"square", "rectangle", "empty", "ValueError", "TypeError", "OverflowError"}


@pytest.mark.parametrize("shape", [(150, 150), (120, 160), (160, 120)])
def test_from_a_hundred_rows_on_it_is_our_solver(shape: tuple[int, int]) -> None:
    q, w = instance(160, 8, 0, "clustered")
    cost = -(q @ w.T).double().numpy()[: shape[0], : shape[1]]
    for maximize in (False, True):
        rows, columns = linear_sum_assignment(cost, maximize)
        best = cost[by_scipy(cost, maximize)].sum()
        assert np.array_equal(rows, np.sort(rows)) and len(set(columns)) == min(shape)
        assert cost[rows, columns].sum() == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_give_tensors(dtype: torch.dtype) -> None:
    cost = (10 * torch.rand(4, 6)).to(dtype)
    rows, columns = linear_sum_assignment(cost, maximize=True)
    assert rows.dtype == columns.dtype == torch.int64 and rows.device == columns.device == cost.device
    best = cost.double().numpy()[by_scipy(cost.double().numpy(), maximize=True)].sum()
    assert float(cost.double()[rows, columns].sum()) == pytest.approx(best)


def test_arguments_have_scipys_names() -> None:
    cost = np.array([[4.0, 1, 4], [2, 0, 5]])
    for function in (by_scipy, linear_sum_assignment):
        rows, columns = function(cost_matrix=cost, maximize=True)
        assert rows.tolist() == [0, 1] and columns.tolist() == [0, 2]


def test_what_is_given_is_not_changed() -> None:
    for size in (5, 130):
        cost = torch.rand(size, size, dtype=torch.float64, requires_grad=True)
        before = cost.detach().clone()
        linear_sum_assignment(cost)
        linear_sum_assignment(cost.detach().numpy())
        assert torch.equal(cost, before)


@pytest.mark.parametrize(
    ("cost", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"cost has shape \[2\]; expected a matrix \[n, m\]"),
        ([[1, 2], [3]], ValueError, "cost is a list that is no matrix of numbers"),
        ({}, TypeError, "cost is a dict that is no matrix of numbers"),
        (csr_array(np.eye(3)), ValueError, "cost is a csr_array that is no matrix of numbers"),
        ([[1, 2], [np.nan, 3]], ValueError, r"cost holds NaN \(first in row 1\); expected finite numbers, or inf"),
        ([[-np.inf, 2], [4, 3]], ValueError, r"cost holds -inf \(first in row 0\); expected finite numbers, or inf"),
        ([[np.inf, np.inf], [4, 3]], ValueError, "every permutation of cost uses a pair at inf; expected one that"),
        (np.eye(2, dtype=object), TypeError, "cost holds object; expected real numbers that fit float64"),
        (torch.eye(2) * 1j, TypeError, "cost is torch.complex64"),
        (torch.eye(2).to_sparse(), TypeError, "expected real numbers in a dense tensor"),
        (torch.empty(2, 2, device="meta"), TypeError, "cost is on the meta device"),
        (np.ma.masked_less(np.eye(2), 0.5), TypeError, "cost is a masked array"),
    ],
)
def test_errors_have_scipys_type_and_say_more(cost: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear_sum_assignment(cost)


def test_inf_is_refused_where_the_largest_total_is_asked_for() -> None:
    cost = np.array([[1, np.inf], [2, 3]])
    with pytest.raises(ValueError, match=r"cost holds inf \(first in row 0\); expected finite numbers, or -inf"):
        linear_sum_assignment(cost, maximize=True)
    assert linear_sum_assignment(-cost, maximize=True)[1].tolist() == [0, 1]
    with pytest.raises(ValueError, match="every permutation"):
        linear_sum_assignment(np.full((120, 120), np.inf))


def test_totals_beyond_float64() -> None:
    cost = 1e308 * (1 + np.eye(3))[:, ::-1].clip(max=1.7)
    assert linear_sum_assignment(-cost)[1].tolist() == [2, 1, 0]
