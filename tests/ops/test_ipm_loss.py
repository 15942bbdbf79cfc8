"""Eq. 6, the other powers and their gradients against the float64 reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fastproto import functional as F
from fastproto import ipm_loss, reference
from fastproto.backend import use_backend

from ..helpers import SHAPES, assert_as_accurate_as, unit_rows
from ..helpers import ipm_batch as batch

POWERS = [0.5, 0.7, 1.0, 3.0]
BACKENDS = ["numba", "torch"]


@pytest.mark.parametrize(("b", "c", "d"), [*SHAPES, (0, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("loss", "power"), [("eq6", 2.0), ("official", 2.0)] + [("power", p) for p in POWERS])
def test_ipm_loss(b: int, c: int, d: int, dtype: torch.dtype, loss: str, power: float) -> None:
    features, labels, prototypes, assignment = batch(b, c, d)
    features = features.to(dtype).requires_grad_()
    weight, cotangent = torch.rand(b), torch.randn(b)
    scale = 2.0 if loss == "official" else 1.0

    asked = {"loss": loss, "power": power} if loss == "power" else {"loss": loss}
    ours = F.ipm_loss(features, labels, prototypes, assignment, weight=weight, reduction="none", **asked)
    (our_gradient,) = torch.autograd.grad(ours, features, cotangent)
    assert ours.dtype == torch.float32 and our_gradient.dtype == dtype

    def plain(x: Tensor, w: Tensor, omega: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = scale * reference.ipm_loss(x, labels, w, assignment, omega, power=power)
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


@pytest.mark.parametrize("power", POWERS)
def test_gradcheck_of_a_power_away_from_the_target(power: float) -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    x = features.double().requires_grad_()
    assert gradcheck(lambda x: F.ipm_loss(x, labels, prototypes.double(), assignment, power=power), x)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_power_2_is_eq6_bit_for_bit(dtype: torch.dtype, backend: Any) -> None:
    features, labels, prototypes, assignment = batch(40, 30, 17)
    features[:5] = 2 * prototypes[assignment[labels[:5]]] + 1e-4 * torch.randn(5, 17)
    features[5] = 0
    weight, found = torch.rand(40), []
    for options in ({}, {"power": 2}, {"loss": "power", "power": 2.0}):
        for omega, reduction in ((None, "mean"), (weight, "none")):
            x = features.to(dtype).requires_grad_()
            with use_backend(backend):
                loss = F.ipm_loss(x, labels, prototypes, assignment, weight=omega, reduction=reduction, **options)
            found.append((loss.detach(), torch.autograd.grad(loss.sum(), x)[0]))
    for mean, each in ((found[2], found[3]), (found[4], found[5])):
        assert all(map(torch.equal, found[0], mean)) and all(map(torch.equal, found[1], each))


def test_eq6_on_torch_is_its_formula_bit_for_bit() -> None:
    features, labels, prototypes, assignment = batch(40, 30, 17)
    x = features.clone().requires_grad_()
    with use_backend("torch"):
        loss = F.ipm_loss(x, labels, prototypes, assignment, reduction="none")
    loss.sum().backward()
    inverse = torch.linalg.vector_norm(features, dim=1, keepdim=True).reciprocal()
    z, w = features * inverse, prototypes[assignment[labels]]
    residual = (z * w).sum(1, keepdim=True) - 1
    assert torch.equal(loss, (0.5 * residual.square()).squeeze(1))
    assert torch.equal(x.grad, (w - (residual + 1) * z) * (residual * inverse))


def at_an_angle(angle: float, dim: int) -> tuple[Tensor, Tensor]:
    """Features of norm 3 at an angle from their prototypes, and the prototypes: float64 numbers that float32 holds."""
    w = unit_rows(50, dim).double()
    across = torch.randn(50, dim, dtype=torch.float64)
    across = torch.nn.functional.normalize(across - (across * w).sum(1, keepdim=True) * w, dim=1)
    return (3 * (math.cos(angle) * w + math.sin(angle) * across)).float().double(), w


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("dim", [5, 129])
def test_one_minus_cos_does_not_cancel_near_the_target(power: float, dim: int, backend: Any) -> None:
    y = torch.arange(50)
    for angle in (1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4):
        x, w = at_an_angle(angle, dim)
        truth = reference.ipm_loss(x, y, w, y, power=power)
        gradient = reference.ipm_gradient(x, y, w, y, power)
        leaf = x.float().requires_grad_()
        with use_backend(backend):
            loss = F.ipm_loss(leaf, y, w.float(), y, power=power, reduction="none")
        loss.sum().backward()
        assert leaf.grad is not None
        allowed = (1 + power) * 1e-6 / angle  # of a difference: over angle²
        assert float(((loss.detach() - truth) / truth).abs().max()) <= allowed
        assert float(((leaf.grad - gradient).norm(dim=1) / gradient.norm(dim=1)).max()) <= allowed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("power", [0.01, *POWERS, 100.0])
def test_loss_and_gradient_are_zero_at_the_target_and_finite_everywhere(power: float, backend: Any) -> None:
    w, y = unit_rows(7, 6), torch.arange(7)
    w[0] = torch.eye(6)[0]
    scales = torch.tensor([1.0, 2.0, 3.0, 0.1, 1e-3, -1.0, 0.0])
    for x in (scales[:, None] * w, scales.double()[:, None] * w.double()):
        x.requires_grad_()
        with use_backend("torch" if x.dtype == torch.float64 else backend):
            loss = F.ipm_loss(x, y, w, y, power=power, reduction="none")
        loss.sum().backward()
        assert x.grad is not None and bool(loss.isfinite().all()) and bool(x.grad.isfinite().all())
        assert not bool(x.grad[6].any()) and loss[6].item() == pytest.approx(1 / power)
        torch.testing.assert_close(loss[5].item(), 2**power / power, rtol=1e-4, atol=0)
        if x.dtype == torch.float32:  # in float64 the float32 prototypes are not unit
            assert not bool(loss[:5].any()) and not bool(x.grad[:5].any())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("power", [3.0, 60.0, 100.0])
def test_the_gradient_of_a_power_at_extreme_norms(power: float, backend: Any) -> None:
    w, y = unit_rows(7, 6), torch.arange(7)
    w /= w.norm(dim=1, keepdim=True)
    for norm in (1e-5, 1e15):
        x = (norm * torch.nn.functional.normalize(0.2 * unit_rows(7, 6) - w)).requires_grad_()
        with use_backend(backend):
            F.ipm_loss(x, y, w, y, power=power, reduction="sum").backward()
        truth = reference.ipm_gradient(x.detach().double(), y, w.double(), y, power)
        assert x.grad is not None
        assert float(((x.grad - truth).norm(dim=1) / truth.norm(dim=1)).max()) <= power * 1e-5


def test_skipped_rows_and_other_options_of_a_power() -> None:
    features, labels, prototypes, assignment = batch(5, 6, 3)
    features[2, 1] = math.nan
    good = torch.tensor([0, 1, 3, 4])
    for backend in BACKENDS:
        with use_backend(backend):  # type: ignore[arg-type]
            every = F.ipm_loss(features, labels, prototypes, assignment, power=0.5, nan_policy="skip", reduction="none")
            some = F.ipm_loss(features[good], labels[good], prototypes, assignment, power=0.5, reduction="none")
            total = F.ipm_loss(features[good], labels[good], prototypes, assignment, power=0.5, reduction="sum")
        assert every[2] == 0 and torch.equal(every[good], some) and torch.equal(total, some.sum())


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
        ({"loss": "softmax"}, ValueError, "a loss of heads; expected one of eq6, power, official"),
        ({"loss": "power"}, ValueError, "power is None with loss 'power'; expected an exponent such as 0.5"),
        ({"loss": "official", "power": 0.5}, ValueError, "power is 0.5 with loss 'official'; expected none"),
        ({"power": 0.0}, ValueError, "power is 0.0; expected a number > 0"),
        ({"power": -1}, ValueError, "power is -1.0"),
        ({"power": math.nan}, ValueError, "power is nan"),
        ({"power": math.inf}, ValueError, "power is inf"),
        ({"power": 1e-3}, ValueError, "power is 0.001; expected an exponent from 0.01 to 100"),
        ({"power": "half"}, TypeError, "power is 'half'"),
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
