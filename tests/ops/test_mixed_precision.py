"""autocast, GradScaler, and what the losses refuse: transforms and second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastproto import PrototypeHead, reference
from fastproto import functional as F
from fastproto.assignment import assign

from ..helpers import unit_rows

B, C, D = 4096, 30, 64


def make(**options: Any) -> PrototypeHead:
    return PrototypeHead(C, D, prototypes=unit_rows(C, D), **options)


def test_a_grad_scaler_saves_float16_gradients() -> None:
    """Divided by B before they are scaled up, most of these gradients would be zero in float16."""
    head, labels = make(), torch.randint(0, C, (B,))
    x = (20 * torch.randn(B, D)).half().requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    loss = head(x, labels)
    assert loss.dtype == torch.float32
    scaler.scale(loss).backward()
    exact = x.detach().double().requires_grad_()
    reference.ipm_loss(exact, labels, head.prototypes.double(), head.assignment).mean().backward()
    assert x.grad is not None and exact.grad is not None
    error = (x.grad.double() / scaler.get_scale() - exact.grad).norm() / exact.grad.norm()
    assert error < 2 * torch.finfo(torch.float16).eps
    assert exact.grad.half().eq(0).float().mean() > 0.1, "the test should see numbers that float16 loses"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_autocast_and_grad_scaler(dtype: torch.dtype, reduction: str) -> None:
    """A scaled step under autocast is the plain step, but for the rounding of the features."""
    x, labels, weight = torch.randn(16, 8), torch.randint(0, C, (16,)), torch.rand(16)
    prototypes = unit_rows(C, D)
    found = []
    for scaled in (False, True):
        torch.manual_seed(1)
        model, head = nn.Linear(8, D), PrototypeHead(C, D, prototypes=prototypes, reduction=reduction)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        before = model.weight.detach().clone()
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)
        with torch.autocast("cpu", dtype, enabled=scaled):
            features = model(x)
            loss = head(features, labels, weight)
            assert features.dtype == (dtype if scaled else torch.float32)
            assert loss.dtype == torch.float32
        scaler.scale(loss.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        found.append((loss.detach(), model.weight.detach() - before, head.class_means.clone()))
    for plain, mixed in zip(*found, strict=True):
        assert float((plain - mixed).norm()) <= 4 * torch.finfo(dtype).eps * float(plain.norm())


def losses() -> dict[str, Callable[[Tensor], Tensor]]:
    w, assignment, labels = unit_rows(6, 4), torch.randperm(6), torch.arange(5)
    head = PrototypeHead(6, 4, prototypes=w)
    return {
        "ipm_loss": lambda x: F.ipm_loss(x, labels, w, assignment),
        "PrototypeHead": lambda x: head(x, labels),
        "uniformity_loss": F.uniformity_loss,
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # jvp's own imports
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.parametrize("name", ["ipm_loss", "PrototypeHead", "uniformity_loss"])
def test_transforms_and_second_derivatives_are_refused(name: str) -> None:
    loss, x = losses()[name], torch.randn(5, 4)
    transforms: list[Callable[[], object]] = [
        lambda: torch.func.grad(loss)(x),
        lambda: torch.func.jacrev(loss)(x),
        lambda: torch.func.jvp(loss, (x,), (x,)),
        lambda: torch.func.vmap(loss)(torch.stack([x, x])),
        lambda: torch.func.hessian(loss)(x),
    ]
    for transform in transforms:
        with pytest.raises(RuntimeError, match=r"cannot be transformed by torch\.func"):
            transform()
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert float(gradient.norm()) > 0


def test_autocast_does_not_reach_assignment_or_alignment() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    q = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    head = PrototypeHead(200, 8, prototypes=w)
    head.class_means.copy_(q)
    plain = assign(q, w, method="column_generation")
    with torch.autocast("cpu", torch.bfloat16):
        found = assign(q, w, method="column_generation")
        head.align(starts=1)
    assert torch.equal(found.permutation, plain.permutation) and found.gap == plain.gap
    assert (head.prototypes @ head.prototypes.T - w @ w.T).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_assignment_under_another_default_dtype(dtype: torch.dtype) -> None:
    w = torch.nn.functional.normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.set_default_dtype(dtype)
    try:
        found = assign(w[torch.arange(199, -1, -1)], w, method="column_generation")
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.certified and torch.equal(found.permutation, torch.arange(199, -1, -1))


def test_a_jacobian_may_be_taken_all_at_once() -> None:
    w = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), dim=1)
    x, y, order = w[:5] + 0.1, torch.tensor([0, 1, 5, 2, 2]), torch.arange(6)

    def losses(rows: torch.Tensor) -> torch.Tensor:
        return F.ipm_loss(rows, y, w, order, reduction="none")

    one_by_one = torch.autograd.functional.jacobian(losses, x)
    assert torch.equal(torch.autograd.functional.jacobian(losses, x, vectorize=True), one_by_one)
