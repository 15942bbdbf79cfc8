"""Input checks shared by the public functions: each failure is one sentence (given, expected, what to do)."""

from __future__ import annotations

import contextlib
import math
import operator
from numbers import Real

import torch
from torch import Tensor

from fastproto.support.tracing import tracing

TINY_NORM = 1e-12  # rows shorter than this have no direction
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
UNIT_TOLERANCE = 1e-3  # a prototype's norm may differ from 1 by this much, or by the epsilon of its dtype


def shape_of(tensor: Tensor) -> str:
    return "[" + ", ".join(map(str, tensor.shape)) + "]"


def whole(name: str, value: object) -> int:
    """Convert to int: an integer of Python or NumPy, or a float with an integral value, such as 10.0.

    Raises:
        TypeError: a bool, or not a number.
        ValueError: a number without an integral value, NaN or inf.
    """
    truth = isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    if not truth:
        try:
            return operator.index(value)  # type: ignore[arg-type]  # other types raise
        except TypeError:
            if isinstance(value, Real) and float(value).is_integer():
                return int(float(value))
    error = ValueError if isinstance(value, Real) and not truth else TypeError
    raise error(f"{name} is {value!r}; expected an integer, such as 10: convert it with int()")


def real(name: str, value: object) -> float:
    """Convert to float: a number of Python or NumPy or a scalar tensor; NaN and inf are allowed.

    Raises:
        TypeError: a bool, a complex number, or not a number.
        ValueError: an integer beyond the range of float64.
    """
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex() and value.dtype != torch.bool:
        return float(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} is an integer beyond float64; expected a number below 1e308") from None
    raise TypeError(f"{name} is {value!r}; expected a number: convert it with float()")


def check_classes(num_classes: object, dim: object) -> tuple[int, int]:
    """Check C and D, and return them as integers.

    Raises:
        TypeError, ValueError: not integers, or below 2.
    """
    count, width = whole("num_classes", num_classes), whole("dim", dim)
    if count < 2 or width < 2:
        raise ValueError(f"num_classes is {count} and dim {width}; expected both to be at least 2")
    return count, width


def check_seed(seed: object) -> int:
    """Check a seed, and return it as an integer that torch and NumPy accept.

    Raises:
        TypeError, ValueError: not an integer, or of more than 62 bits.
    """
    number = whole("seed", seed)
    if abs(number) >= 2**62:
        raise ValueError(f"seed is {number}; expected an integer of at most 62 bits, such as 0")
    return number


def check_momentum(momentum: object) -> float:
    """Check α of the class means.

    Raises:
        TypeError, ValueError: not a number, or not in [0, 1).
    """
    number = real("momentum", momentum)
    if not 0 <= number < 1:
        raise ValueError(f"momentum is {number}; expected 0 <= momentum < 1, such as 0.9")
    return number


def check_positive(name: str, value: object, example: str, what: str = "number") -> float:
    """Check a finite number above zero.

    Raises:
        TypeError, ValueError: not a number, or not in (0, inf).
    """
    number = real(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} is {number}; expected a {what} > 0, such as {example}")
    return number


def check_floats(name: str, tensor: object) -> None:
    """Check for a dense tensor of float32, float64, bfloat16 or float16.

    Raises:
        TypeError: anything else.
    """
    if isinstance(tensor, Tensor) and tensor.dtype in FLOATS and tensor.layout == torch.strided:
        return
    if not isinstance(tensor, Tensor):
        given, advice = f"a {type(tensor).__name__}", "convert it, for instance with torch.as_tensor(...).float()"
    elif tensor.layout != torch.strided:
        given, advice = f"a {tensor.layout} tensor", "convert it with .to_dense()"
    elif tensor.is_complex():
        given, advice = f"a {tensor.dtype} tensor", "pass its .real or .abs()"
    else:
        given, advice = f"a {tensor.dtype} tensor", "convert it, for instance with .float()"
    raise TypeError(f"{name} is {given}; expected a floating-point tensor: {advice}")


def check_sharpness(t: object) -> float:
    """Check t of the Gaussian potential: finite and above zero."""
    return check_positive("t", t, "2.0", "sharpness")


def check_matrix(name: str, tensor: Tensor, *, min_rows: int = 1, min_dim: int = 2) -> None:
    """Check for a floating-point matrix [rows, D]."""
    check_floats(name, tensor)
    if tensor.ndim != 2 or tensor.shape[0] < min_rows or tensor.shape[1] < min_dim:
        raise ValueError(
            f"{name} has shape {shape_of(tensor)}; expected [rows, D] with at least {min_rows} rows and D >= {min_dim}"
        )


def check_width(features: Tensor, dim: int) -> None:
    """Check for floating-point features [B, dim]."""
    if tracing():  # sizes are then tensors, and comparing them gives a warning
        return
    check_matrix("features", features, min_rows=0)
    if features.shape[1] != dim:
        raise ValueError(
            f"features are {shape_of(features)}; expected [B, {dim}]: make the backbone's output as wide as the "
            "head's dim"
        )


def check_weight(weight: Tensor | None, labels: Tensor, name: str = "weight") -> None:
    """Check one floating-point factor per sample, or None; values are checked on the CPU only."""
    if weight is None:
        return
    check_floats(name, weight)
    if weight.shape != labels.shape:
        raise ValueError(f"{name} has shape {shape_of(weight)}; expected {shape_of(labels)}, one for each sample")
    # elsewhere the check would wait for the device, and in a compiled step there are no values
    if weight.device.type == "cpu" and not torch.compiler.is_compiling():
        check_finite(name, weight)


def check_finite(name: str, tensor: Tensor) -> None:
    # NaN and inf propagate to the sum: only if it is not finite, check every number, which takes 40 times as long
    if not math.isfinite(tensor.detach().sum()) and not bool(torch.isfinite(tensor).all()):
        row = int((~torch.isfinite(tensor)).flatten(1 if tensor.ndim > 1 else 0).nonzero()[0, 0])
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


def check_k(k: object, count: int) -> int:
    """Check k of a top-k query over ``count`` prototypes."""
    number = whole("k", k)
    if not 1 <= number <= count:
        raise ValueError(f"k is {number}; expected 1..{count}, the number of prototypes")
    return number


def check_prototypes(prototypes: Tensor) -> None:
    check_matrix("prototypes", prototypes)
    if prototypes.requires_grad:
        raise ValueError("prototypes require grad; expected fixed prototypes: pass prototypes.detach()")


def check_labels(name: str, labels: Tensor, count: int) -> None:
    """Check type and shape, int64 [count]; the values are not read, so that nothing waits for the device."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.layout != torch.strided:
        if not isinstance(labels, Tensor):
            raise TypeError(
                f"{name} are a {type(labels).__name__}; expected an int64 tensor: pass torch.as_tensor(...)"
            )
        given = str(labels.dtype) if labels.layout == torch.strided else str(labels.layout)
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


def check_int64_vector(name: str, vector: object, size: int, expected: str) -> None:
    """Check for an int64 tensor [size]; ``expected`` completes the error message.

    Raises:
        ValueError: anything else.
    """
    if isinstance(vector, Tensor) and vector.dtype == torch.int64 and vector.shape == (size,):
        return
    given = f"{vector.dtype} {shape_of(vector)}" if isinstance(vector, Tensor) else type(vector).__name__
    raise ValueError(f"{name} is {given}; expected {expected}")


def check_permutation(name: str, permutation: Tensor, size: int) -> None:
    check_int64_vector(name, permutation, size, f"an int64 permutation of 0..{size - 1}, shape [{size}]")
    check_label_range(name, permutation, size)
    if int(torch.bincount(permutation, minlength=size).max()) > 1:
        raise ValueError(
            f"{name} names a row more than once; expected a permutation of 0..{size - 1}: "
            "pass torch.randperm or the result of assign"
        )


def default_device() -> torch.device:
    """The default device; torch.get_default_device raises in torch 2.9 after the default was reset to None."""
    return torch.empty(0).device


def default_cpu() -> contextlib.AbstractContextManager[object]:
    """A context in which the default device is the CPU, whatever torch.set_default_device says."""
    return contextlib.nullcontext() if default_device().type == "cpu" else torch.device("cpu")
