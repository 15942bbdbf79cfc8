"""A step of the head under autocast and with a GradScaler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastproto import PrototypeHead, reference

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
