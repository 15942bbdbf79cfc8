"""How an op becomes a registered operator, opaque to the compiler, CUDA graphs and export; and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def register(
    name: str, function: Callable[..., Any], shapes: Callable[..., Any], mutates: Sequence[str] = ()
) -> Callable[..., Any]:
    """``torch.ops.fastproto.<name>``: runs ``function`` on every device; ``shapes`` gives empty results of its kind.

    Not torch.library.custom_op: its first call would import torch's compiler, seconds and 150 MiB on a CPU.
    """
    qualified = f"fastproto::{name}"
    torch.library.define(qualified, torch.library.infer_schema(function, mutates_args=tuple(mutates)))
    torch.library.impl(qualified, "default", function)
    torch.library.register_fake(qualified, shapes)
    operator: Callable[..., Any] = getattr(torch.ops.fastproto, name)
    return operator


def with_gradient(operator: Callable[..., tuple[Tensor, Tensor]], x: Tensor, *arguments: Any) -> Tensor:
    """The value of ``operator(x, *arguments)``, which returns a value and its gradient: differentiable once in ``x``.

    The value is a scalar, or [B] where row i of the gradient [B, D] is that of number i. Backward only scales the
    gradient.

    Raises:
        RuntimeError: under torch.func; in backward, with ``create_graph=True``.
    """
    _refuse_transforms()
    value: Tensor = _ReadyGradient.apply(x, operator, *arguments)
    return value


class _ReadyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: Callable[..., tuple[Tensor, Tensor]], *arguments: Any) -> Tensor:
        value, gradient = operator(x, *arguments)
        ctx.save_for_backward(gradient)
        ctx.others = len(arguments)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_double_backward()
        (gradient,) = ctx.saved_tensors
        if not _is_one(grad):
            gradient = product(gradient, grad[..., None] if grad.ndim else grad)
        return gradient, *[None] * (1 + ctx.others)


def product(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product in float32, rounded once to the dtype of ``gradient``, without a float32 matrix in between."""
    if torch.compiler.is_compiling() or gradient.dtype == factor.dtype or _batched(factor):
        return (gradient * factor).to(gradient.dtype)
    return torch.mul(gradient, factor, out=torch.empty_like(gradient))


def _batched(grad: Tensor) -> bool:
    """Whether it stands for several at once, as in a Jacobian that is taken with ``vectorize=True``."""
    return torch._C._functorch.is_batchedtensor(grad)


def _is_one(grad: Tensor) -> bool:
    """Whether it comes from ``loss.sum().backward()`` on the CPU, where looking costs nothing."""
    if (
        torch.compiler.is_compiling()
        or _batched(grad)
        or grad.device.type != "cpu"
        or grad.ndim == 0
        or grad.stride(0) != 0
        or len(grad) == 0
    ):
        return False
    return float(grad[0]) == 1.0


def _refuse_transforms() -> None:
    """Under torch.func the ready-made gradient would not be what is differentiated, mapped or linearised."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "the losses of fastproto cannot be transformed by torch.func (grad, vmap, jvp, ...); use backward() or "
            "torch.autograd.grad, or the functions of fastproto.reference"
        )


def _refuse_double_backward() -> None:
    """The gradient comes ready-made from the forward pass: differentiated again, it would silently be a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the losses of fastproto cannot be differentiated twice (create_graph=True was given); "
            "use fastproto.reference for second derivatives"
        )
