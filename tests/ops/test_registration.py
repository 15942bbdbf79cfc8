"""The registered operators and their ready-made gradients: determinism, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastproto import PrototypeHead
from fastproto import functional as F

from ..helpers import ipm_batch as batch
from ..helpers import unit_rows


def test_double_backward_is_refused() -> None:
    features, labels, prototypes, assignment = batch(4, 5, 3)
    x = features.requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(F.ipm_loss(x, labels, prototypes, assignment), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(F.uniformity_loss(x), x, create_graph=True)


def test_registered_operators() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    for x, weight, skip in ((features, None, False), (features.double(), torch.rand(6), True)):
        flag, means = torch.zeros(1, dtype=torch.int32), torch.zeros(9, 4)
        arguments = (x, labels, prototypes, assignment, weight, 0.5, skip, flag, torch.tensor(0) if skip else None)
        torch.library.opcheck(torch.ops.fastproto.ipm_loss.default, arguments)
        torch.library.opcheck(torch.ops.fastproto.update_class_means_.default, (means, x, labels, 0.9, skip, flag))
        torch.library.opcheck(torch.ops.fastproto.head_step_.default, (*arguments, means, 0.9))

    w, ops = unit_rows(9, 4), torch.ops.fastproto
    torch.library.opcheck(ops.gaussian_potential.default, (w, None, 2.0, None, None, "highest"))
    torch.library.opcheck(ops.gaussian_potential.default, (w[:2], w, 2.0, torch.tensor([1, -1]), torch.rand(9), "high"))
    for rows, with_gradient in ((None, True), (torch.tensor([5, 2]), True), (None, False)):
        for matrix in (w, w.double(), w.T.contiguous().T):
            torch.library.opcheck(ops.uniformity_loss.default, (matrix, 30.0, rows, "eq5", "highest", with_gradient))


def test_five_runs_same_bits() -> None:
    features, labels, prototypes, assignment = batch(200, 31, 17)
    means = torch.randn(31, 17)

    def everything() -> list[Tensor]:
        x = features.clone().requires_grad_()
        w = torch.randn(31, 17, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = F.ipm_loss(x, labels, prototypes, assignment) + F.uniformity_loss(w)
        loss.backward()
        assert x.grad is not None and w.grad is not None
        return [loss.detach(), x.grad, w.grad, F.update_class_means(means, features, labels, 0.9)]

    first = everything()
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))


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
