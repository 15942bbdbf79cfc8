"""Log-sum-exp of scores and the sweep of Sinkhorn against float64, on a GPU or under Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ..kernel_device import DEVICE, REPEATS, needs_cuda, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.lib import tile_sizes as tiles
from fastproto_kernels.log_sum_exp import log_sum_exp, sinkhorn_sweep

from ..helpers import assert_as_accurate_as
from ..score_cases import CRUMB, SHAPES, rows, strided, tile_of


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def check(points: Tensor, others: Tensor, *, scale: float = 10.0, bias: Tensor | None = None, **options: Any) -> None:
    b = 0.0 if bias is None else bias
    truth = (scale * (points.double() @ others.double().T) + b).logsumexp(1)
    single = (scale * (points.float() @ others.float().T) + b).logsumexp(1)
    options = {"tile": tile_of(points.shape[1])} | options
    lse = log_sum_exp(points, others, scale=scale, bias=bias, **options)
    assert lse.dtype == torch.float32
    assert_as_accurate_as(lse, single, truth, CRUMB[str(options.get("precision", "high"))])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", ["highest", "higher"])
def test_as_accurate_as_torch(shape: tuple[int, int, int], precision: str) -> None:
    m, c, dim = shape
    check(rows(m, dim), rows(c, dim), precision=precision, bias=torch.randn(c, device=DEVICE))


@pytest.mark.parametrize("precision", ["high", "medium", pytest.param("tf32x3", marks=needs_cuda)])
@pytest.mark.parametrize("biased", [False, True])
def test_other_precisions_with_and_without_bias(precision: str, biased: bool) -> None:
    check(rows(40, 24), rows(30, 24), precision=precision, bias=torch.randn(30, device=DEVICE) if biased else None)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_joined(parts: int) -> None:
    check(rows(33, 8), rows(150, 8), parts=parts, precision="higher")


@pytest.mark.parametrize("resident", [True, False])
def test_points_in_the_program_or_walked_over(resident: bool) -> None:
    check(rows(33, 300), rows(40, 300), tile=tile_of(300, resident), precision="higher")


@pytest.mark.parametrize("scale", [0.0, -50.0, 1000.0])
def test_no_scale_overflows(scale: float) -> None:
    check(rows(20, 8), rows(70, 8), scale=scale, bias=3 * scale * torch.rand(70, device=DEVICE), precision="highest")


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, of a mask times infinity
def test_a_bias_of_minus_infinity_leaves_an_other_out() -> None:
    points, others = rows(20, 8), rows(100, 8)
    bias = torch.zeros(100, device=DEVICE)
    bias[:70] = -torch.inf  # two whole tiles and a part of the next
    check(points, others, bias=bias, precision="highest")
    options: dict[str, Any] = {"tile": tile_of(8), "parts": 3}
    alone = log_sum_exp(points, others, scale=1.0, bias=torch.full_like(bias, -torch.inf), **options)
    assert bool((alone == -torch.inf).all())


def test_rows_that_are_not_contiguous_and_halves() -> None:
    points, others = rows(20, 24), rows(50, 24)
    check(strided(points), others.T.contiguous().T)
    check(points.half(), others.half(), precision="higher")
    check(points[:1].expand(20, 24), strided(others), bias=strided(torch.randn(50, 1, device=DEVICE))[:, 0])


def test_an_empty_batch() -> None:
    assert log_sum_exp(rows(0, 6), rows(8, 6), scale=1.0).shape == (0,)


def test_runs_have_the_same_bits() -> None:
    points, others = rows(20, 20), rows(130, 20)
    first = log_sum_exp(points, others, scale=30.0, parts=3, tile=tile_of(20))
    for _ in range(REPEATS):
        assert torch.equal(first, log_sum_exp(points, others, scale=30.0, parts=3, tile=tile_of(20)))


@pytest.mark.parametrize("m", [30, 41])
def test_sweeps_balance_the_columns(m: int) -> None:
    """One sweep against float64, and eight of them: every column of the plan then sums to M/C."""
    q, w, epsilon = rows(m, 8), rows(41, 8), 1.0
    prices = 0.1 * torch.randn(41, device=DEVICE)
    z = (q.double() @ w.double().T - prices) / epsilon
    rows_found, columns = sinkhorn_sweep(q, w, prices, epsilon=epsilon, precision="higher")
    torch.testing.assert_close(rows_found.double(), z.logsumexp(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns.double(), (z - z.logsumexp(1)[:, None]).logsumexp(0), rtol=1e-5, atol=1e-5)
    for _ in range(8):
        _, columns = sinkhorn_sweep(q, w, prices, epsilon=epsilon, precision="higher")
        prices = prices + epsilon * (columns - torch.log(torch.tensor(m / 41, device=DEVICE)))
    scores = (q.double() @ w.double().T - prices) / epsilon
    plan = scores.softmax(1).sum(0)
    torch.testing.assert_close(plan, torch.full_like(plan, m / 41), rtol=1e-4, atol=0)


@needs_cuda
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
@pytest.mark.parametrize("dim", [64, 128, 256, 512, 1024])
def test_every_tile_that_ships_on_this_chip(precision: str, dim: int) -> None:
    points, others = rows(1111, dim), rows(2222, dim)
    lse = log_sum_exp(points, others, scale=20.0, precision=precision)
    truth = (20 * (points.double() @ others.double().T)).logsumexp(1)
    torch.testing.assert_close(lse.double(), truth, rtol=0, atol=20 * CRUMB.get(precision, 2e-3))
