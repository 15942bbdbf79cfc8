"""Input checks shared by the public functions: each failure is one sentence (given, expected, what to do)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY_NORM = 1e-12  # rows shorter than this have no direction
UNIT_TOLERANCE = 1e-3  # a prototype's norm may differ from 1 by this much, or by the epsilon of its dtype


def shape_of(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def check_matrix(name: str, tensor: Tensor, *, min_rows: int = 1, min_dim: int = 2) -> None:
    """A floating-point matrix [rows, D] of finite numbers."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        given = f"a {tensor.dtype} tensor" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise TypeError(f"{name} is {given}; expected a floating-point tensor: convert it, for instance with .float()")
    if tensor.ndim != 2 or tensor.shape[0] < min_rows or tensor.shape[1] < min_dim:
        raise ValueError(
            f"{name} has shape {shape_of(tensor)}; expected [rows, D] with at least {min_rows} rows and D >= {min_dim}"
        )


def check_finite(name: str, tensor: Tensor) -> None:
    # NaN and inf reach the sum; only where it is not finite is every number looked at, which takes forty times as long
    if not math.isfinite(tensor.detach().sum()) and not bool(torch.isfinite(tensor).all()):
        row = int((~torch.isfinite(tensor)).flatten(1).any(1).nonzero()[0])
        raise ValueError(
            f"{name} holds NaN or inf (first in row {row}); expected finite numbers: find what produced it"
        )


def check_unit_rows(name: str, tensor: Tensor) -> None:
    check_finite(name, tensor)
    deviation = (torch.linalg.vector_norm(tensor.float(), dim=1) - 1).abs()
    if bool((deviation > unit_tolerance(tensor.dtype)).any()):
        raise not_unit(name, tensor, int(deviation.argmax()))


def unit_tolerance(dtype: torch.dtype) -> float:
    return max(UNIT_TOLERANCE, torch.finfo(dtype).eps)


def not_unit(name: str, tensor: Tensor, row: int) -> ValueError:
    norm = float(torch.linalg.vector_norm(tensor[row].float()))
    return ValueError(
        f"{name} row {row} has norm {norm:.4g}; expected unit rows: pass torch.nn.functional.normalize(w, dim=1)"
    )


def check_prototypes(prototypes: Tensor) -> None:
    check_matrix("prototypes", prototypes)
    if prototypes.requires_grad:
        raise ValueError("prototypes require grad; expected fixed prototypes: pass prototypes.detach()")


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """The cheap part, without looking at values: int64 [B]."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        given = str(labels.dtype) if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name} are {given}; expected an int64 tensor: convert them with .long()")
    if labels.shape != (count,):
        raise ValueError(f"{name} have shape {shape_of(labels)}; expected [{count}], one number for each row")


def check_label_range(name: str, labels: Tensor, num_classes: int) -> None:
    if labels.numel() == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{name} run from {low} to {high}; expected 0..{num_classes - 1} for {num_classes} classes: "
            "check the number of classes or leave out the unlabelled samples"
        )


def check_permutation(name: str, permutation: Tensor, size: int) -> None:
    if not isinstance(permutation, Tensor) or permutation.dtype != torch.int64 or permutation.shape != (size,):
        given = (
            f"{permutation.dtype} {shape_of(permutation)}"
            if isinstance(permutation, Tensor)
            else type(permutation).__name__
        )
        raise ValueError(f"{name} is {given}; expected an int64 permutation of 0..{size - 1}, shape [{size}]")
    check_label_range(name, permutation, size)
    if int(torch.bincount(permutation, minlength=size).max()) > 1:
        raise ValueError(
            f"{name} names a row more than once; expected a permutation of 0..{size - 1}: "
            "pass torch.randperm or the result of assign"
        )


def refuse_transforms() -> None:
    """Under torch.func the ready-made gradient would not be what is differentiated, mapped or linearised."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            "the losses of fastproto cannot be transformed by torch.func (grad, vmap, jvp, ...); use backward() or "
            "torch.autograd.grad, or the functions of fastproto.reference"
        )


def refuse_double_backward() -> None:
    """The gradient comes ready-made from the forward pass: differentiated again, it would silently be a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the losses of fastproto cannot be differentiated twice (create_graph=True was given); "
            "use fastproto.reference for second derivatives"
        )


def recording() -> bool:
    """Whether torch.export or torch.jit.trace is recording: a graph for other batches, which must not hold values."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
