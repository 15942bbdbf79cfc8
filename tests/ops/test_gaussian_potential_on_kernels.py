"""The Gaussian potential on the triton backend: on a GPU, or under the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import functional as F
from fastproto import reference
from fastproto.backend import use_backend
from fastproto.ops import gaussian_potential as P

from ..helpers import assert_potential_as_accurate
from ..kernel_device import DEVICE, needs_cuda, on_kernels, rows, some  # it skips the file where the kernels cannot run

SHAPES = [(64, 32), (37, 17), (2, 2), (130, 3), (20, 100)]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    with on_kernels(monkeypatch, P) as launched:
        yield launched


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("t", [2.0, 15.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_potential(shape: tuple[int, int], t: float, weighted: bool, calls: list[str]) -> None:
    count, dim = shape
    w = rows(count, dim)
    weights = torch.rand(count, device=DEVICE) if weighted else None
    own = torch.arange(count, device=DEVICE)
    part = torch.randperm(count, device=DEVICE)[: 1 + count // 3]
    full = F.gaussian_potential(w, t=t, weights=weights)
    piece = F.gaussian_potential(w[part], w, t=t, self_index=part, weights=weights)
    assert calls == ["gaussian_potential"] * 2
    for ours, chosen in ((full, own), (piece, part)):
        assert_potential_as_accurate(ours, w[chosen], w, t, chosen, weights)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_minus_one_leaves_out_no_pair(backend: str, precision: str) -> None:
    w = rows(30, 6)
    points = torch.cat([w[[4, 7]], rows(2, 6)])
    with use_backend(backend):
        potential, _ = F.gaussian_potential(points, w, self_index=some(4, 7, -1, -1), precision=precision)
    truth = torch.exp(4 * (points.double() @ w.double().T - 1))
    truth[0, 4] = truth[1, 7] = 0
    torch.testing.assert_close(potential.double(), truth.sum(1), rtol=1e-3 if precision == "high" else 1e-5, atol=0)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
def test_half_precision_rows_are_the_float32_rows_they_are(backend: str, dtype: torch.dtype) -> None:
    w = rows(40, 12).to(dtype)
    with use_backend(backend):
        ours, wide = F.gaussian_potential(w), F.gaussian_potential(w.float())
    for our, plain in zip(ours, wide, strict=True):
        assert our.dtype == torch.float32
        torch.testing.assert_close(our, plain)


@pytest.mark.parametrize(("precision", "bound"), [("highest", 1e-5), ("high", 1e-3), ("medium", 1e-2)])
@pytest.mark.parametrize("dim", [2, 64])
@pytest.mark.parametrize("t", [2.0, 8.0])
def test_precisions_keep_their_promise(precision: str, bound: float, dim: int, t: float) -> None:
    """At t = 8 half precision would not: the products are then float32."""
    w = rows(400, dim)
    part = torch.arange(64, device=DEVICE)
    pull = F.gaussian_potential(w[part], w, t=t, self_index=part, precision=precision)[1].double()
    true = reference.gaussian_potential(w[part].double(), w.double(), t, part)[1]
    p = w[part].double()
    pull, true = (x - (x * p).sum(1, keepdim=True) * p for x in (pull, true))
    assert float((pull - true).norm() / true.norm()) <= bound


@pytest.mark.parametrize("precision", ["medium", "high"])
@pytest.mark.parametrize(("dim", "passed_on"), [(31, "highest"), (32, None)])
def test_weights_in_few_dimensions_stay_float32(
    precision: str, dim: int, passed_on: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 halves, which weights need, would miss the promised error there."""
    seen: list[str] = []

    def launcher(points: Tensor, *_: Any, precision: str, **__: Any) -> tuple[Tensor, Tensor]:
        seen.append(precision)
        return points[:, 0], points

    monkeypatch.setattr(P, "kernel", lambda op: launcher)
    P.potential_and_pull(rows(5, dim), None, 2.0, weights=torch.ones(5, device=DEVICE), precision=precision)
    assert seen == [passed_on or precision]
