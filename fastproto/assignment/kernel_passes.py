"""The sweeps of column generation on Triton kernels, for factors on a GPU; the same ``Scores`` as in passes.

A sweep is one launch that fuses the product with what is kept of it. The lists that it finds, [C, k], prices and
permutations are all that crosses the bus, in two or three waits a sweep; the exact solver on the lists stays on the
processor. Products are sums of three float16 ones, so as exact as float32, and pairs that even this leaves in question
are computed again in float64, where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.passes import EPS, EVERY, LEAST_OVERLAP, Array, FactorScores
from fastproto.backend import kernel, resolve

MAX_PLACES = 32  # what the kernel of top_scores keeps of a row
PRECISION = "higher"
# Sinkhorn's exponents need no more: the rounding of D entries, each 2^-11 of it, averages out to 5e-4 std(s).
MASS_PRECISION = "medium"
ELEMENTS = 1 << 24  # float64 numbers of a block: 128 MiB


def factor_scores(class_means: Tensor, norms: Tensor, prototypes: Tensor) -> tuple[FactorScores | KernelScores, str]:
    """Scores of rows that are not zero [m, D], with their lengths [m] float64, and prototypes [C, D]; and where it is.

    Raises:
        ValueError, ImportError: as :func:`fastproto.backend.resolve`.
    """
    dtype = torch.float64 if torch.float64 in (class_means.dtype, prototypes.dtype) else torch.float32
    q, w = (x.detach().to(dtype) for x in (class_means, prototypes))
    # the kernels see centred float32 rows, whatever the dtype is here
    choice = resolve("assign", *(x.new_empty(0, dtype=torch.float32) for x in (q, w)))
    if choice.backend == "triton":
        return KernelScores(q, norms, w), f"sweeps on {choice}"
    q, w = (x.cpu().contiguous() for x in (q, w))
    return FactorScores(q, norms.cpu().numpy(), w), f"sweeps on {choice}"


class _Centred(NamedTuple):
    """Rows less their mean, in units of the longest: of length up to 1, as the kernels expect them."""

    rows: Tensor  # [n, D] float32
    unit: Tensor  # [] float64
    norm: Tensor  # [n] float64, of the rows
    loss: Tensor  # [n] float64: how far the sum of their two float16 halves is from them
    low: Tensor  # [n] float64: length of the lower half, whose product with the other lower half is left out


def _centre(x: Tensor, mean: Tensor) -> _Centred:
    """float64 [n, D], which is overwritten, and its mean."""
    x.sub_(mean)
    unit = torch.linalg.vector_norm(x, dim=1).max() if len(x) else x.new_zeros(())
    unit = torch.where(unit > 0, unit, 1.0)
    x.div_(unit)
    norm, rows = torch.linalg.vector_norm(x, dim=1), x.float()
    high = rows.half()
    low = (rows - high).half()
    loss = torch.linalg.vector_norm(x.sub_(high).sub_(low), dim=1)
    return _Centred(rows, unit, norm, loss, torch.linalg.vector_norm(low, dim=1, dtype=torch.float64))


class _OnDevice(NamedTuple):
    """Of KernelScores, float64."""

    error: Tensor  # [rows]
    row_shift: Tensor  # [rows]
    column_shift: Tensor  # [columns]


class KernelScores:
    """s_ij = q̂_i·w_j. The kernels see r_ij in units of their own: s_ij - p_j = unit (r_ij - shifted p_j) + row_shift_i.

    Centring leaves the assignment what it is, and float16 halves with digits for what rows do not have in common.
    """

    def __init__(self, class_means: Tensor, norms: Tensor, prototypes: Tensor) -> None:
        self.left, self.right, self.norms = class_means, prototypes, norms
        self.shape = (len(class_means), len(prototypes))
        q, w = class_means.double() / norms[:, None], prototypes.to(torch.float64, copy=True)
        means = q.sum(0) / max(len(q), 1), w.mean(0)
        offset = means[0] @ means[1]
        shifts = q @ means[1] - offset, w @ means[0]
        left, right = _centre(q, means[0]), _centre(w, means[1])
        unit = left.unit * right.unit
        rounded = left.rows.bfloat16(), right.rows.bfloat16()
        grams = [(x.T @ x).double() for x in rounded]
        overlap, most = (grams[0] * grams[1]).sum(), grams[0].norm() * grams[1].norm()
        # Cauchy-Schwarz on what the halves leave out; three sums of D products each, in tensor cores that cut off bits
        longest, lost = right.norm.max(), right.loss.max()
        error = left.loss * (longest + lost) + left.norm * lost + left.low * right.low.max()
        error += 4 * (class_means.shape[1] + 1) * EPS * 1.01 * left.norm * longest
        scalars = torch.stack([unit, overlap, most, offset, right.unit + torch.linalg.vector_norm(means[1])])
        self._there = _OnDevice(error * unit, *shifts)
        found = torch.cat([scalars, *self._there]).cpu().numpy()  # one wait for the device
        self.unit, variance, scale, self.mean, self.magnitude = (float(x) for x in found[:5])
        self.error, self.row_shift, self.column_shift = np.split(found[5:], [self.shape[0], 2 * self.shape[0]])
        if variance < LEAST_OVERLAP * scale:
            x, y = left.rows.double(), right.rows.double()
            variance = float(((x.T @ x) * (y.T @ y)).sum())
        self.spread = self.unit * (max(variance, 0.0) / max(self.shape[0] * self.shape[1], 1)) ** 0.5
        self.points, self.others = left.rows, right.rows

    def margin(self, prices: Array) -> Array:
        return self.error + 2 * EPS * float(np.abs(prices - self.column_shift).max())

    def column_mass(self, prices: Array, temperature: float, every: int) -> Array:
        _, mass = kernel("sinkhorn_sweep")(
            self.points[::every],
            self.others,
            self._sent(self._in_units(prices)),
            epsilon=temperature / self.unit,
            precision=MASS_PRECISION,
        )
        return as_array(mass.exp().double())

    def top(
        self,
        prices: Array,
        k: int,
        floor: Array | None = None,
        rows: Array | slice = EVERY,
        within: Array | None = None,
    ) -> tuple[Array, Array]:
        shift = self.row_shift[rows]
        low = None if floor is None else self._sent(((floor[rows] - shift) / self.unit).astype(np.float32))
        values, indices = kernel("assign")(
            self.points[rows if isinstance(rows, slice) else self._sent(rows)],
            self.others,
            min(k, MAX_PLACES),
            prices=self._sent(self._in_units(prices)),
            floor=low,
            precision=PRECISION,
        )
        found = as_array(values.double()) * self.unit + shift[:, None], as_array(indices.to(torch.int32))
        if k <= MAX_PLACES:
            return found
        values, indices = (
            np.full((len(shift), k), empty, x.dtype) for x, empty in zip(found, (-np.inf, -1), strict=True)
        )
        values[:, :MAX_PLACES], indices[:, :MAX_PLACES] = found
        full = np.nonzero(found[1][:, -1] >= 0)[0]
        which = np.arange(self.shape[0])[rows][full]
        values[full], indices[full] = self._many(which, prices, k, None if floor is None else floor[which])
        return values, indices

    def recheck(self, columns: Array, prices: Array, places: int) -> tuple[float, float] | None:
        """All on the device: two waits."""
        j, p = self._sent(columns), self._sent(prices)
        shifted = p - self._there.column_shift
        scores = self._exact(None, j)
        own = scores - p[j]
        floor = own - self._there.error - 2 * EPS * shifted.abs().max()
        _, indices = kernel("assign")(
            self.points,
            self.others,
            places := min(places, self.shape[1]),
            prices=shifted / self.unit,
            floor=(floor - self._there.row_shift) / self.unit,
            precision=PRECISION,
        )
        rows, place = ((indices >= 0) & (indices != j[:, None])).nonzero(as_tuple=True)
        ends = indices[rows, place]
        best = own.scatter_reduce(0, rows, self._exact(rows, ends) - p[ends], "amax")
        crowded = (indices[:, -1] >= 0) & (places < self.shape[1])
        gap, total, more = torch.stack([(best - own).sum(), scores.sum(), crowded.sum().double()]).tolist()
        if more * self.shape[1] > ELEMENTS:
            return None
        if more:
            some = crowded.nonzero().squeeze(1)
            best[some] = torch.maximum(best[some], (self._rows(some) - p).amax(1))
            gap = float((best - own).sum())
        return gap, total

    def exact(self, rows: Array, columns: Array) -> Array:
        return as_array(self._exact(self._sent(rows), self._sent(columns)))

    def _exact(self, rows: Tensor | None, columns: Tensor) -> Tensor:
        """float64 s_ij of these pairs; without rows, of every row and its column."""
        found = self.norms.new_empty(len(columns))
        step = max(1, ELEMENTS // self.left.shape[1])
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            left = self.left[part if rows is None else rows[part]].to(torch.float64, copy=True)
            found[part] = left.mul_(self.right[columns[part]]).sum(1)
        return found / (self.norms if rows is None else self.norms[rows])

    def exact_rows(self, rows: Array) -> Array:
        return as_array(self._rows(self._sent(rows)))

    def _rows(self, rows: Tensor) -> Tensor:
        return self.left[rows].double() @ self.right.double().T / self.norms[rows, None]

    def _many(self, rows: Array, prices: Array, k: int, floor: Array | None) -> tuple[Array, Array]:
        """More places than the kernel keeps, of the few rows that have so many: float64, a block of rows at a time."""
        values = np.empty((len(rows), k))
        indices = np.empty((len(rows), k), np.int32)
        step = max(1, ELEMENTS // self.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            best = (self._rows(self._sent(rows[part])) - self._sent(prices)).topk(k)
            values[part], indices[part] = as_array(best.values), as_array(best.indices.to(torch.int32))
        if floor is not None:
            below = values < floor[:, None]
            values[below], indices[below] = -np.inf, -1
        return values, indices

    def _in_units(self, prices: Array) -> Array:
        shifted: Array = ((prices - self.column_shift) / self.unit).astype(np.float32)
        return shifted

    def _sent(self, array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.left.device)


def as_array(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
