"""Eq. 6 and its gradient against the float64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fastproto import functional as F
from fastproto import ipm_loss, reference

from ..helpers import SHAPES, assert_as_accurate_as, unit_rows
from ..helpers import ipm_batch as batch


@pytest.mark.parametrize(("b", "c", "d"), [*SHAPES, (0, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", ["eq6", "official"])
def test_ipm_loss(b: int, c: int, d: int, dtype: torch.dtype, loss: str) -> None:
    features, labels, prototypes, assignment = batch(b, c, d)
    features = features.to(dtype).requires_grad_()
    weight, cotangent = torch.rand(b), torch.randn(b)
    scale = 2.0 if loss == "official" else 1.0

    ours = F.ipm_loss(features, labels, prototypes, assignment, weight=weight, reduction="none", loss=loss)
    (our_gradient,) = torch.autograd.grad(ours, features, cotangent)
    assert ours.dtype == torch.float32 and our_gradient.dtype == dtype

    def plain(x: Tensor, w: Tensor, omega: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = scale * reference.ipm_loss(x, labels, w, assignment, omega)
        return value.detach(), torch.autograd.grad(value, x, v)[0]

    torchs = plain(features.float(), prototypes, weight, cotangent)
    truth = plain(features.double(), prototypes.double(), weight.double(), cotangent.double())
    assert_as_accurate_as(ours.detach(), torchs[0], truth[0])
    assert_as_accurate_as(our_gradient, torchs[1].to(dtype), truth[1], crumb=2 * torch.finfo(dtype).eps)


def test_ipm_loss_gradcheck_and_reductions() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    x = features.double().requires_grad_()
    weight = torch.rand(6, dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        assert gradcheck(
            lambda x, r=reduction: F.ipm_loss(x, labels, prototypes, assignment, weight=weight, reduction=r), x
        )
    per_sample = F.ipm_loss(x, labels, prototypes, assignment, weight=weight, reduction="none")
    torch.testing.assert_close(F.ipm_loss(x, labels, prototypes, assignment, weight=weight), per_sample.sum() / 6)


def test_ipm_loss_of_rows_without_direction() -> None:
    _, labels, prototypes, assignment = batch(3, 4, 5)
    x = torch.tensor([[0.0] * 5, [1e-13] * 5, [1.0] * 5], requires_grad=True)
    loss = F.ipm_loss(x, labels, prototypes, assignment, reduction="none")
    loss.sum().backward()
    assert loss[:2].tolist() == [0.5, 0.5]
    assert x.grad is not None and x.grad[:2].eq(0).all() and x.grad[2].abs().sum() > 0


def test_ipm_loss_of_strided_rows() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    wide = torch.randn(6, 8)
    wide[:, ::2] = features
    ours = F.ipm_loss(wide[:, ::2], labels, prototypes, assignment)
    torch.testing.assert_close(ours, F.ipm_loss(features, labels, prototypes, assignment), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_equals_eager() -> None:
    features, labels, prototypes, assignment = batch(16, 9, 4)

    def step(x: Tensor, means: Tensor) -> Tensor:
        loss = F.ipm_loss(x * 2, labels, prototypes, assignment)
        F.update_class_means_(means, x, labels, 0.9)
        return loss

    results: list[Any] = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x, means = features.clone().requires_grad_(), torch.zeros(9, 4)
        loss = function(x, means)
        loss.backward()
        results.append((loss.detach(), x.grad, means))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


def good() -> dict[str, Any]:
    features, labels, prototypes, assignment = batch(4, 6, 3)
    return {"features": features, "labels": labels, "prototypes": prototypes, "assignment": assignment}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.tensor([0, 1, 2, 6])}, ValueError, "labels run from 0 to 6; expected 0..5"),
        ({"labels": torch.tensor([0, -1, 2, 3])}, ValueError, "labels run from -1 to 3"),
        ({"labels": torch.tensor([0.0, 1, 2, 3])}, TypeError, "torch.float32; expected an int64"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, r"shape \[3\]; expected \[4\]"),
        ({"features": torch.randn(4, 5)}, ValueError, "expected the same D"),
        ({"features": torch.randn(4)}, ValueError, "at least 0 rows"),
        ({"features": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "convert it"),
        ({"features": torch.tensor([[1.0, 2, 3]] * 2 + [[1, float("nan"), 3]] * 2)}, ValueError, "first in row 2"),
        ({"features": torch.tensor([[1.0, 2, 3]] * 3 + [[1, float("inf"), 3]])}, ValueError, "first in row 3"),
        ({"prototypes": unit_rows(6, 3).requires_grad_()}, ValueError, "detach"),
        ({"assignment": torch.arange(5)}, ValueError, r"expected \[6\]"),
        ({"assignment": torch.full((6,), 99)}, ValueError, "expected 0..5"),
        ({"assignment": torch.full((6,), -1)}, ValueError, "expected 0..5"),
        ({"prototypes": 3 * unit_rows(6, 3)}, ValueError, "expected unit rows"),
        ({"prototypes": torch.full((6, 3), float("nan"))}, ValueError, "NaN"),
        ({"weight": torch.tensor([1.0, float("nan"), 1, 1])}, ValueError, "weight holds NaN"),
        ({"weight": torch.ones(3)}, ValueError, r"shape \[3\]"),
        ({"reduction": "average"}, ValueError, "'average'"),
        ({"loss": "eq7"}, ValueError, "'eq7'"),
    ],
)
def test_ipm_loss_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.ipm_loss(**(good() | change))


def test_prototypes_of_low_precision_are_taken_or_refused() -> None:
    features, labels, prototypes, assignment = batch(64, 50, 8)
    low = prototypes.bfloat16()
    ours = F.ipm_loss(features, labels, low, assignment, reduction="none")
    torch.testing.assert_close(ours, reference.ipm_loss(features, labels, low.float(), assignment, None))
    prototypes[7] *= 1.01
    with pytest.raises(ValueError, match=r"row 7 has norm 1\.01"):
        F.ipm_loss(features, torch.full((64,), 3), prototypes, torch.tensor([7, 1, 2] + [7] * 47))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("count", [3, 7])  # thirds and sevenths are no float32 numbers
def test_the_loss_of_float64_features_is_that_of_float64(count: int, reduction: str) -> None:
    x, y = torch.randn(count, 5, dtype=torch.float64), torch.arange(count) % 4
    w, a = unit_rows(4, 5, torch.float64), torch.randperm(4)
    ours, true = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss = ipm_loss(ours, y, w, a, reduction=reduction)
    truth = reference.ipm_loss(true, y, w, a).sum() / (count if reduction == "mean" else 1)
    loss.backward()
    truth.backward()
    torch.testing.assert_close(loss, truth, rtol=1e-14, atol=0)
    torch.testing.assert_close(ours.grad, true.grad, rtol=1e-13, atol=1e-15)


def test_a_jacobian_may_be_taken_all_at_once() -> None:
    w = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    x, y, order = w[:5] + 0.1, torch.tensor([0, 1, 5, 2, 2]), torch.arange(6)

    def losses(rows: torch.Tensor) -> torch.Tensor:
        return F.ipm_loss(rows, y, w, order, reduction="none")

    one_by_one = torch.autograd.functional.jacobian(losses, x)
    assert torch.equal(torch.autograd.functional.jacobian(losses, x, vectorize=True), one_by_one)
