"""The Gaussian potential: the public function, its operator, and the torch path, in blocks and without a C×C matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.backend import KERNEL_DTYPES, kernel, resolve
from fastproto.checks import check_labels, check_matrix, check_unit_rows, shape_of

PRECISIONS = ("highest", "high", "medium")
# One block of g is ROWS × COLUMNS, 3 MiB in float32: small enough to stay in the last cache between the product that
# makes it, exp and the two products that use it. ROWS is also what the square blocks on the diagonal waste. Ten
# shapes from 128 × 2048 to 1024 × 1024 differed by no more than the noise of timing, about a tenth.
ROWS = 384
COLUMNS = 2048  # at least ROWS: the diagonal lies in the first block of a row of blocks
OFFSET_MAX = 32.0  # up to this 2t, exp(2t·cos) fits float32 and the factor exp(-2t) is applied to the sums, not to g
ROUNDED_MIN_DIM = 96  # below it the cosines of random rows are too large for "high", and the products too small to gain
WEIGHTED_MIN_DIM = 16  # weights take the kernels to bfloat16, whose errors of "medium" reach 3e-2 in two dimensions
ROUNDED_MAX = 8.0  # up to this 2t bfloat16 keeps what is promised: its error of a cosine, 2⁻⁹, is multiplied by 2t


def gaussian_potential(
    points: Tensor,
    others: Tensor | None = None,
    *,
    t: float = 2.0,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: str = "highest",
) -> tuple[Tensor, Tensor]:
    """Potential and pull of unit vectors on unit vectors, in memory O((M + C)·D): no M×C matrix is stored.

    ``g = torch.exp(-2 * t * (1 - points @ others.T))``; potential ``g.sum(1)``, pull ``g @ others``.

    Runs on Triton for CUDA tensors of the kernels' dtypes, see :func:`fastproto.backend.resolve`: a fixed number of
    launches that never wait for the device, so it fits a CUDA graph. Values are then not looked at: a NaN or a row that
    is not unit shows in the result. Tensors on the CPU are checked. No gradient flows through the result;
    :func:`fastproto.functional.uniformity_loss` has one.

    Args:
        points: unit rows [M, D], float32 or float64; bfloat16 and float16 rows are taken as the float32 rows they are.
        others: unit rows [C, D]; None means the points themselves, each without its self-pair (on torch each pair of
            rows is then computed once, a quarter of the work less).
        t: sharpness of the Gaussian potential, > 0.
        self_index: int64 [M], the row of ``others`` that is the point itself and is left out; -1 leaves out none.
        weights: [C], a factor for each row of ``others``.
        precision: of the matrix products: ``highest`` is IEEE float32; ``high`` and ``medium`` use half precision with
            float32 sums, with errors up to 1e-3 and 1e-2 of the tangent gradient at evenly spread rows. They apply
            where t <= 4: with Triton at any D (from 16 with weights), on torch to float32 rows with D >= 96 where
            bfloat16 is quick (CUDA; processors with AMX or AVX512-BF16). Otherwise, and always for float64, the
            products stay in the dtype of the points.

    Returns:
        potential Σ_j g_ij [M] and pull Σ_j g_ij w_j [M, D], float32 (float64 for float64 rows).

    Raises:
        TypeError, ValueError: another dtype or shape, t <= 0, an unknown precision, tensors on several devices; on the
            CPU also rows that are not unit and self_index out of range.

    Source: Eq. 3 of Saadabadi et al., CVPR 2024 (the potential of Wang & Isola, 2020).
    """
    check_sharpness(t)
    check_precision(precision)
    if others is None and self_index is not None:
        raise ValueError("self_index is given without others; expected others too: leave self_index out")
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
    if weights is not None and weights.shape != (count,):
        raise ValueError(f"weights have shape {shape_of(weights)}; expected [{count}], one for each row of others")
    with torch.no_grad():
        result: tuple[Tensor, Tensor] = _gaussian_potential(points, others, t, self_index, weights, precision)
    return result


@torch.library.custom_op("fastproto::gaussian_potential", mutates_args=())
def _gaussian_potential(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    if points.device.type == "cpu":  # elsewhere looking would wait for the device
        check_unit_rows("points", points)
        if others is not None:
            check_unit_rows("others", others)
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


@_gaussian_potential.register_fake
def _(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None,
    weights: Tensor | None,
    precision: str,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    return points.new_empty(points.shape[0], dtype=dtype), points.new_empty(points.shape, dtype=dtype)


def potential_and_pull(
    points: Tensor,
    others: Tensor | None,
    t: float,
    self_index: Tensor | None = None,
    weights: Tensor | None = None,
    precision: str = "highest",
    centre: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What the operator does, on the backend that :func:`fastproto.backend.resolve` names, without checks or gradient.

    ``centre`` [1], for Triton alone: g = exp(2t (p·w - centre)), which float32 holds at any t.
    """
    given = [tensor for tensor in (points, others, self_index, weights) if tensor is not None]
    rounded = 2 * t <= ROUNDED_MAX
    if resolve("gaussian_potential", *given).backend == "triton":
        if others is None:
            others, self_index = points, torch.arange(len(points), device=points.device)
        rounded = rounded and (weights is None or points.shape[1] >= WEIGHTED_MIN_DIM)
        options = {"self_index": self_index, "weights": weights, "precision": precision if rounded else "highest"}
        result: tuple[Tensor, Tensor] = kernel("gaussian_potential")(points, others, t=t, centre=centre, **options)
        return result
    dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
    points, others = points.to(dtype), None if others is None else others.to(dtype)
    rounded = rounded and dtype == torch.float32 and points.shape[1] >= ROUNDED_MIN_DIM
    precision = precision if rounded and quick_bfloat16(points.device) else "highest"
    with torch.autocast(points.device.type, enabled=False):
        if others is None:
            return _Sweep(points, None, 2 * t, weights, precision).symmetric()
        if self_index is None or bool((self_index >= 0).all()):
            return _Sweep(points, others, 2 * t, weights, precision).general(self_index)
        potential, pull = points.new_empty(len(points)), points.new_empty(points.shape)
        inside = self_index >= 0
        for some, own in ((inside, self_index[inside]), (~inside, None)):
            if bool(some.any()):
                potential[some], pull[some] = _Sweep(points[some], others, 2 * t, weights, precision).general(own)
        return potential, pull


def largest_cosine(points: Tensor, others: Tensor | None = None, self_index: Tensor | None = None) -> Tensor:
    """max p_i·w_j over j ≠ self_index_i (others=None: of all pairs of points), [1], without waiting for the device."""
    if others is None:
        others, self_index = points, torch.arange(len(points), device=points.device)
    largest = points.new_full((1,), -torch.inf)
    for start in range(0, len(points), COLUMNS):
        rows = slice(start, start + COLUMNS)
        for column in range(0, len(others), COLUMNS):
            cosines = points[rows] @ others[column : column + COLUMNS].T
            if self_index is not None:
                at = torch.arange(column, column + cosines.shape[1], device=points.device)
                cosines.masked_fill_(self_index[rows, None] == at, -torch.inf)
            largest = torch.maximum(largest, cosines.max())
    return largest


def check_sharpness(t: float) -> None:
    if not (0 < t < float("inf")):
        raise ValueError(f"t is {t}; expected a sharpness > 0, such as 2.0")


def check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected 'highest', 'high' or 'medium'")


def quick_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are quicker than float32 ones; asked of the hardware, never timed: same bits."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )


class _Sweep:
    """One pass. g = exp(-k)·exp(k·cos) with k = 2t; a block holds a part of exp(k·cos), the rest is added at the end:

    ``highest`` holds all of it; ``medium`` exp(x) - 1, so that rounding is relative to what varies, and Σ_j w_j is
    exact; ``high`` also leaves out x, whose sums Σ_j w_j and (WᵀW) w_i are exact in float32: only what is left of the
    series, small at the cosines of evenly spread rows, is rounded.
    """

    def __init__(self, points: Tensor, others: Tensor | None, k: float, weights: Tensor | None, precision: str) -> None:
        self.k, self.precision, self.weights = k, precision, weights
        self.points, self.others = points, points if others is None else others
        self.values = self.others if weights is None else self.others * weights[:, None]
        self.offset = 0.0 if k <= OFFSET_MAX else k
        self.potential = points.new_zeros(len(points))
        self.pull = torch.zeros_like(points, memory_format=torch.contiguous_format)
        size = min(ROWS, len(points)) * min(COLUMNS, len(self.others))
        self.g = points.new_empty(size)
        if precision != "highest":
            self.g16 = points.new_empty(size, dtype=torch.bfloat16)
            self.left = points.to(torch.bfloat16)
            self.right = self.left if others is None else self.others.to(torch.bfloat16)
            self.heavy = self.right if weights is None else self.values.to(torch.bfloat16)

    def block(self, rows: slice, columns: slice) -> Tensor:
        """The part of exp(k·cos) that a block holds [rows, columns], in a buffer that is used again."""
        r, c = len(self.points[rows]), len(self.others[columns])
        g = self.g[: r * c].view(r, c)
        if self.precision == "highest":
            if self.offset:  # in this order: 1 - cos of a close pair is exact, k times the cosine would not be
                return torch.mm(self.points[rows], self.others[columns].T, out=g).sub_(1).mul_(self.k).exp_()
            return torch.mm(self.points[rows] * self.k, self.others[columns].T, out=g).exp_()
        s = self.g16[: r * c].view(r, c)
        torch.mm(self.left[rows], self.right[columns].T, out=s)
        g.copy_(s).mul_(self.k)
        if self.precision == "medium":
            return g.expm1_()
        x = g.clone()
        return g.expm1_().sub_(x)

    def factor(self, g: Tensor) -> Tensor:
        """The block as the products of ``pull`` take it: itself, or rounded to bfloat16."""
        return g if self.precision == "highest" else self.g16[: g.numel()].view(g.shape).copy_(g)

    def add(self, into: slice, summed: slice, g: Tensor, factor: Tensor) -> None:
        """Σ over the rows ``summed`` into potential and pull of the points ``into``."""
        self.potential[into] += g.sum(1) if self.weights is None else g @ self.weights[summed]
        if self.precision == "highest":
            self.pull[into].addmm_(factor, self.values[summed])
        else:
            self.pull[into] += factor @ self.heavy[summed]

    def symmetric(self) -> tuple[Tensor, Tensor]:
        """Each pair once: a row of blocks begins at the diagonal and gives to both its rows and its columns."""
        count = len(self.points)
        for start in range(0, count, ROWS):
            rows = slice(start, min(start + ROWS, count))
            for column in range(start, count, COLUMNS):
                columns = slice(column, min(column + COLUMNS, count))
                g = self.block(rows, columns)
                if column == start:
                    g.diagonal().zero_()
                factor = self.factor(g)
                self.add(rows, columns, g, factor)
                beyond = slice(max(column, rows.stop), columns.stop)
                if beyond.stop > beyond.start:
                    part = slice(beyond.start - column, None)
                    self.add(beyond, rows, g[:, part].T, factor[:, part].T)
        return self.finish(torch.arange(count, device=self.points.device))

    def general(self, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        for start in range(0, len(self.points), ROWS):
            rows = slice(start, start + ROWS)
            for column in range(0, len(self.others), COLUMNS):
                columns = slice(column, column + COLUMNS)
                g = self.block(rows, columns)
                if self_index is not None:
                    own = self_index[rows] - column
                    at = ((own >= 0) & (own < g.shape[1])).nonzero().squeeze(1)
                    g[at, own[at]] = 0
                self.add(rows, columns, g, self.factor(g))
        return self.finish(self_index)

    def finish(self, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Adds what the blocks left out, without the self-pairs, and the factor exp(-k)."""
        if self.precision != "highest":
            self.add_moments(self_index)
        scale = math.exp(self.offset - self.k)
        return self.potential.mul_(scale), self.pull.mul_(scale)

    def add_moments(self, self_index: Tensor | None) -> None:
        weights = self.points.new_ones(len(self.others)) if self.weights is None else self.weights
        own = None if self_index is None else self.values[self_index]
        self.potential += weights.sum()
        self.pull += self.values.sum(0)
        if own is not None and self_index is not None:
            self.potential -= weights[self_index]
            self.pull -= own
        if self.precision == "high":
            self.potential += self.k * (self.points @ self.values.sum(0))
            self.pull.addmm_(self.points, self.others.T @ self.values, alpha=self.k)
            if own is not None and self_index is not None:
                cosine = (self.points * self.others[self_index]).sum(1)
                self.potential -= self.k * cosine * weights[self_index]
                self.pull -= self.k * cosine[:, None] * own
