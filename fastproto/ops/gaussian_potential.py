"""The Gaussian potential: the public function, its operator, and the choice of the backend."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.backend import KERNEL_DTYPES, kernel, resolve
from fastproto.cpu import gaussian_potential as in_torch
from fastproto.cpu.gaussian_blocks import slices
from fastproto.support.checks import (
    check_finite,
    check_floats,
    check_labels,
    check_matrix,
    check_sharpness,
    check_unit_rows,
    shape_of,
)
from fastproto.support.options import Precision, check_options
from fastproto.support.registration import register

WEIGHTED_MIN_DIM = 32  # with weights the kernels use bfloat16, too coarse for "medium" in fewer dimensions
COSINES_SIDE = 1024  # of a block, 4 MiB in float32
# C²·D and D from which blocks of cuBLAS's float32 products are quicker than the kernel
BLAS_WORK, BLAS_MIN_DIM = 10**9, 64


def gaussian_potential(
    points: Tensor,
    others: Tensor | None = None,
    *,
    t: float = 2.0,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: Precision = "highest",
) -> tuple[Tensor, Tensor]:
    """Potential and pull of unit vectors on unit vectors, in memory O((M + C)·D): no M×C matrix is stored.

    ``g = torch.exp(-2 * t * (1 - points @ others.T))``; potential ``g.sum(1)``, pull ``g @ others``.

    Runs on Triton for CUDA tensors of the kernels' dtypes, see :func:`fastproto.backend.resolve`: a fixed number of
    kernel launches without a synchronisation, so a CUDA graph can hold them. Values are then not checked: NaN and rows
    that are not unit propagate to the result. Tensors on the CPU are checked. No gradient flows through the result;
    :func:`fastproto.functional.uniformity_loss` has one.

    Args:
        points: unit rows [M, D], float32 or float64; bfloat16 and float16 rows are converted to float32.
        others: unit rows [C, D]; None means the points themselves, each without its self-pair (torch then computes each
            pair of rows once, a quarter of the work less).
        t: sharpness of the Gaussian potential, > 0.
        self_index: int64 [M], the row of ``others`` that is the point itself and is left out; -1 leaves out none.
        weights: [C], a factor for each row of ``others``.
        precision: of the matrix products: ``highest`` is IEEE float32; ``high`` and ``medium`` have errors up to 1e-3
            and 1e-2 of the tangent gradient at evenly spread rows. These two apply to float32 rows where t <= 4. On
            Triton they use float16 (bfloat16 with weights, from D = 32). On torch they use bfloat16, with D >= 96 and
            hardware on which it is fast (CUDA; processors with AMX or AVX512-BF16), ``high`` also with 20 t² <= D;
            ``medium`` may use 8-bit integers. Otherwise, and always for float64, the products stay in the dtype of the
            points. On CUDA, large ``highest`` passes without ``others`` use cuBLAS unless PyTorch allows TF32 or Triton
            is forced.

    Returns:
        potential Σ_j g_ij [M] and pull Σ_j g_ij w_j [M, D], float32 (float64 for float64 rows).

    Raises:
        TypeError, ValueError: another dtype or shape, t <= 0, an unknown precision, tensors on several devices; on the
            CPU also rows that are not unit and self_index out of range.

    Source: Eq. 3 of Saadabadi et al., CVPR 2024 (the potential of Wang & Isola, 2020).
    """
    t = check_sharpness(t)
    check_options(precision=precision)
    if others is None and self_index is not None:
        raise ValueError("self_index is given without others; expected both or neither: leave self_index out")
    for name, tensor in (("points", points),) if others is None else (("points", points), ("others", others)):
        check_matrix(name, tensor)
        if tensor.dtype not in (*KERNEL_DTYPES, torch.float64) or tensor.dtype != points.dtype:
            raise TypeError(
                f"{name} are {tensor.dtype} beside {points.dtype}; expected both float32 or both float64 "
                "(or both bfloat16 or both float16): convert with .float()"
            )
    if others is not None and others.shape[1] != points.shape[1]:
        raise ValueError(f"points are {shape_of(points)} and others {shape_of(others)}; expected the same D")
    count = len(points if others is None else others)
    if self_index is not None:
        check_labels("self_index", self_index, len(points))
    if weights is not None:
        check_floats("weights", weights)
    if weights is not None and weights.shape != (count,):
        raise ValueError(f"weights have shape {shape_of(weights)}; expected [{count}], one for each row of others")
    with torch.no_grad():
        result: tuple[Tensor, Tensor] = _operator(points, others, t, self_index, weights, precision)
    return result


def _gaussian_potential(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    if points.device.type == "cpu":  # elsewhere checking values would synchronise
        check_unit_rows("points", points)
        if others is not None:
            check_unit_rows("others", others)
        if weights is not None:
            check_finite("weights", weights)
        if (
            self_index is not None
            and others is not None
            and not -1 <= self_index.min() <= self_index.max() < len(others)
        ):
            raise ValueError(
                f"self_index runs from {int(self_index.min())} to {int(self_index.max())}; "
                f"expected 0..{len(others) - 1}, rows of others, or -1 for a point that is none of them"
            )
    return potential_and_pull(points, others, t, self_index, weights, precision)


def _gaussian_potential_shapes(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    return points.new_empty(points.shape[0], dtype=dtype), points.new_empty(points.shape, dtype=dtype)


_operator = register("gaussian_potential", _gaussian_potential, _gaussian_potential_shapes)


def potential_and_pull(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: str = "highest",
    centre: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The operator without its checks, on the backend that :func:`fastproto.backend.resolve` names.

    For Triton only: the precision ``higher``, three float16 products for each float32 one; and ``centre`` [1], for
    g = exp(2t (p·w - centre)), whose largest term is 1 at any t if it is the largest cosine.
    """
    given = [tensor for tensor in (points, others, self_index, weights) if tensor is not None]
    rounded = 2 * t <= in_torch.ROUNDED_MAX
    choice = resolve("gaussian_potential", *given)
    exact = others is None and centre is None and (precision == "highest" or not rounded)
    by_blas = exact and not choice.forced and blas_is_quicker(points)
    if choice.backend == "triton" and not by_blas:
        if others is None:
            others, self_index = points, torch.arange(len(points), device=points.device)
        rounded = rounded and (weights is None or points.shape[1] >= WEIGHTED_MIN_DIM)
        rounded = rounded and not (weights is not None and torch.are_deterministic_algorithms_enabled())
        if torch.are_deterministic_algorithms_enabled() and precision != "highest":
            precision = "higher"  # needs no correction by cuBLAS, which may refuse to run in this mode
        options = {"self_index": self_index, "weights": weights, "precision": precision if rounded else "highest"}
        result: tuple[Tensor, Tensor] = kernel("gaussian_potential")(points, others, t=t, centre=centre, **options)
        return result
    with torch.autocast(points.device.type, enabled=False):
        return in_torch.gaussian_potential(points, others, t, self_index, weights, precision)


def blas_is_quicker(points: Tensor) -> bool:
    """Whether the pass is large enough for cuBLAS and PyTorch's settings permit it: no TF32, no deterministic mode."""
    count, dim = points.shape
    if points.device.type != "cuda" or dim < BLAS_MIN_DIM or count * count * dim < BLAS_WORK:
        return False
    exact = torch.backends.cuda.matmul.fp32_precision in ("none", "ieee")
    return exact and not torch.are_deterministic_algorithms_enabled()


def largest_cosine(points: Tensor, others: Tensor | None = None, self_index: Tensor | None = None) -> Tensor:
    """max p_i·w_j over j ≠ self_index_i (others=None: of all pairs of points), [1], without a synchronisation."""
    if others is None:
        others, self_index = points, torch.arange(len(points), device=points.device)
    largest = points.new_full((1,), -torch.inf)
    for rows in slices(len(points), COSINES_SIDE):
        for columns in slices(len(others), COSINES_SIDE):
            cosines = points[rows] @ others[columns].T
            if self_index is not None:
                at = torch.arange(columns.start, columns.stop, device=points.device)
                cosines.masked_fill_(self_index[rows, None] == at, -torch.inf)
            largest = torch.maximum(largest, cosines.max())
    return largest
