"""Row maxima and violations against float64, on a GPU or under Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from .kernel_device import DEVICE, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels import tiles
from fastproto_kernels.row_maxima import row_maxima

from .helpers import assert_as_accurate_as
from .score_cases import CRUMB, SHAPES, needs_cuda, rows, strided, tile_of


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def check(points: Tensor, others: Tensor, *, priced: bool = True, bounded: bool = True, **options: Any) -> None:
    """The bound of a row lies between two of its scores, farther from both than any rounding."""
    prices = torch.randn(len(others), device=DEVICE) if priced else None
    p = 0.0 if prices is None else prices
    truth, single = points.double() @ others.double().T - p, points.float() @ others.float().T - p
    falling = truth.sort(dim=1, descending=True).values
    allowed = torch.arange(len(points), device=DEVICE) % len(others)  # this many scores of the row exceed its bound
    limits = torch.cat([falling[:, :1] + 1, (falling[:, :-1] + falling[:, 1:]) / 2], 1).gather(1, allowed[:, None])
    limits = limits.squeeze(1).float()
    options = {"tile": tile_of(points.shape[1])} | options
    bound = limits if bounded else None
    maxima, violations = row_maxima(points, others, prices=prices, bound=bound, **options)
    crumb = CRUMB[str(options.get("precision", "higher"))]
    assert maxima.dtype == torch.float32
    assert_as_accurate_as(maxima, single.amax(1), truth.amax(1), crumb)
    if not bounded:
        assert violations is None
        return
    assert violations is not None and violations.dtype == torch.int64
    clear = (truth - limits[:, None]).abs().min(1).values > 4 * crumb
    assert torch.equal(violations[clear], (truth > limits[:, None]).sum(1)[clear])
    assert int(clear.sum()) >= len(points) // 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", ["highest", "higher"])
def test_as_accurate_as_torch(shape: tuple[int, int, int], precision: str) -> None:
    m, c, dim = shape
    check(rows(m, dim), rows(c, dim), precision=precision)


@pytest.mark.parametrize("priced", [False, True])
@pytest.mark.parametrize("bounded", [False, True])
def test_each_argument_present_and_absent(priced: bool, bounded: bool) -> None:
    check(rows(40, 12), rows(70, 12), priced=priced, bounded=bounded)


@pytest.mark.parametrize("precision", ["high", "medium", pytest.param("tf32x3", marks=needs_cuda)])
def test_other_precisions(precision: str) -> None:
    check(rows(40, 24), rows(30, 24), precision=precision)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_joined(parts: int) -> None:
    check(rows(33, 8), rows(150, 8), parts=parts)


@pytest.mark.parametrize("resident", [True, False])
def test_points_in_the_program_or_walked_over(resident: bool) -> None:
    check(rows(33, 300), rows(40, 300), tile=tile_of(300, resident))


def test_a_score_at_the_bound_is_no_violation() -> None:
    w = torch.eye(20, 32, device=DEVICE)
    options: dict[str, Any] = {"tile": tile_of(32)}
    _, at = row_maxima(w, w, bound=torch.ones(20, device=DEVICE), **options)
    _, below = row_maxima(w, w, bound=torch.full((20,), 0.999, device=DEVICE), **options)
    assert at is not None and below is not None
    assert not bool(at.any()) and below.tolist() == [1] * 20


def test_rows_that_are_not_contiguous_and_halves() -> None:
    points, others = rows(20, 24), rows(50, 24)
    check(strided(points), others.T.contiguous().T)
    check(points.half(), others.half())
    check(points[:1].expand(20, 24), strided(others))


def test_an_empty_batch() -> None:
    maxima, violations = row_maxima(rows(0, 6), rows(8, 6), bound=torch.empty(0, device=DEVICE))
    assert violations is not None
    assert maxima.shape == violations.shape == (0,) and violations.dtype == torch.int64


def test_five_runs_have_the_same_bits() -> None:
    points, others, bound = rows(20, 20), rows(130, 20), torch.rand(20, device=DEVICE)
    options: dict[str, Any] = {"bound": bound, "parts": 3, "tile": tile_of(20)}
    first = row_maxima(points, others, **options)
    for _ in range(4):
        again = row_maxima(points, others, **options)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if a is not None and b is not None)


@needs_cuda
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
@pytest.mark.parametrize("dim", [64, 128, 256, 512, 1024])
def test_every_tile_that_ships_on_this_chip(precision: str, dim: int) -> None:
    points, others = rows(1111, dim), rows(2222, dim)
    maxima, _ = row_maxima(points, others, precision=precision)
    truth = (points.double() @ others.double().T).amax(1)
    torch.testing.assert_close(maxima.double(), truth, rtol=0, atol=CRUMB.get(precision, 2e-3))
