"""Registers functions as torch operators, opaque to the compiler, CUDA graphs and export; and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def register(
    name: str, function: Callable[..., Any], shapes: Callable[..., Any], mutates: Sequence[str] = ()
) -> Callable[..., Any]:
    """Register ``function`` for all devices as ``torch.ops.fastproto.<name>``, and return that operator.

    ``shapes`` is its fake implementation, which returns empty tensors of the shapes and dtypes of the results. Not
    torch.library.custom_op: its first call would import torch's compiler, which takes seconds and much memory.
    """
    qualified = f"fastproto::{name}"
    torch.library.define(qualified, torch.library.infer_schema(function, mutates_args=tuple(mutates)))
    torch.library.impl(qualified, "default", function)
    torch.library.register_fake(qualified, shapes)
    operator: Callable[..., Any] = getattr(torch.ops.fastproto, name)
    return operator


def with_gradient(operator: Callable[..., tuple[Tensor, Tensor]], x: Tensor, *arguments: Any) -> Tensor:
    """The value of ``operator(x, *arguments)``, which returns a value and its gradient: differentiable once in ``x``.

    The value is a scalar, or [B] with row i of the gradient [B, D] as the gradient of element i. Backward only scales
    the gradient.

    Raises:
        RuntimeError: under torch.func; in backward, with ``create_graph=True``.
    """
    _refuse_transforms()
    value: Tensor = _PrecomputedGradient.apply(x, operator, *arguments)
    return value


class _PrecomputedGradient(torch.autograd.Function):
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
        if not _is_expanded_one(grad):
            gradient = product(gradient, grad[..., None] if grad.ndim else grad)
        return gradient, *[None] * (1 + ctx.others)


def product(gradient: Tensor, factor: Tensor) -> Tensor:
    """The product in float32, rounded once to the dtype of ``gradient``, without a float32 matrix in between."""
    if torch.compiler.is_compiling() or gradient.dtype == factor.dtype or _batched(factor):
        return (gradient * factor).to(gradient.dtype)
    return torch.mul(gradient, factor, out=torch.empty_like(gradient))


def _batched(grad: Tensor) -> bool:
    """Whether ``grad`` is a batched tensor of vmap, as in a Jacobian with ``vectorize=True``."""
    return torch._C._functorch.is_batchedtensor(grad)


def _is_expanded_one(grad: Tensor) -> bool:
    """Whether ``grad`` is 1 expanded to [B], as from ``loss.sum().backward()``; checked on the CPU only."""
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
    """Raise RuntimeError under torch.func: its transforms would not see the precomputed gradient."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "the losses of fastproto cannot be transformed by torch.func (grad, vmap, jvp, ...); use backward() or "
            "torch.autograd.grad, or the functions of fastproto.reference"
        )


def _refuse_double_backward() -> None:
    """Raise RuntimeError with ``create_graph=True``: the precomputed gradient would silently count as a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the losses of fastproto cannot be differentiated twice (create_graph=True was given); "
            "use fastproto.reference for second derivatives"
        )
