"""The sweeps of column generation on Triton kernels, for factors on a GPU; the same ``Scores`` as in passes.

A sweep is one launch that fuses the product with what is kept of it. The lists that it finds, [C, k], prices and
permutations are all that crosses the bus, in two or three waits a sweep; the exact solver on the lists stays on the
processor. Products are sums of three float16 ones, so as exact as float32, and pairs that even this leaves in question
are computed again in float64, where they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.scores_cpu import EPS, EVERY, LEAST_OVERLAP, Array, FactorScores, OfRows, Rows
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


class KernelScores:
    """s_ij = q̂_i·w_j. The kernels see r_ij in units of their own: s_ij - p_j = unit (r_ij - shifted p_j) + row_shift_i.

    Centring leaves the assignment what it is, and float16 halves with digits for what rows do not have in common.
    """

    def __init__(self, class_means: Tensor, norms: Tensor, prototypes: Tensor) -> None:
        self.left, self.right, self.norms = class_means.contiguous(), prototypes.contiguous(), norms.contiguous()
        self.shape = (len(class_means), len(prototypes))
        centred = kernel("centre_factors")(self.left, self.norms, self.right)
        self.points, self.others = centred.points, centred.others
        self._there = centred.facts
        here = centred.facts_on_host()
        self.unit, self.mean, self.magnitude = float(here.unit), float(here.offset), float(here.magnitude)
        self.error, self.row_shift, self.column_shift = map(as_array, (here.error, here.row_shift, here.column_shift))
        squares, most = float(here.square_sum), here.gram_norms.tolist()
        if squares < LEAST_OVERLAP * most[0] * most[1]:  # bfloat16 leaves too little of them
            x, y = self.points.double(), self.others.double()
            squares = float(((x.T @ x) * (y.T @ y)).sum())
        self.spread = self.unit * (max(squares, 0.0) / max(self.shape[0] * self.shape[1], 1)) ** 0.5

    def margin(self, prices: Array) -> Array:
        return self.error + self._price_error(prices)

    def _price_error(self, prices: Array) -> float:
        return 2 * EPS * float(np.abs(prices - self.column_shift).max())

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
        self, prices: Array, k: int, floor: OfRows = None, rows: Rows = EVERY, within: OfRows = None
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
        """All on the device: one wait where no row is crowded."""
        j, p, shifted = self._sent(columns), self._sent(prices), self._sent(self._in_units(prices))
        error, row_shift = self._there.error, self._there.row_shift
        own = self._best(j[:, None], p)
        _, indices = kernel("assign")(
            self.points,
            self.others,
            places := min(places, self.shape[1]),
            prices=shifted,
            floor=(own - (error + row_shift) - self._price_error(prices)) / self.unit,
            precision=PRECISION,
        )
        best = torch.maximum(self._best(indices, p), own)
        crowded = (indices[:, -1] >= 0) & (places < self.shape[1])
        gap, total, more = torch.stack((best - own, own, crowded.double())).sum(1).tolist()
        if more * self.shape[1] > ELEMENTS:
            return None
        if more:
            some = crowded.nonzero().squeeze(1)
            best[some] = torch.maximum(best[some], (self._rows(some) - p).amax(1))
            gap = float((best - own).sum())
        return gap, total + float(prices[columns].sum())

    def exact(self, rows: Array, columns: Array) -> Array:
        i, j = self._sent(rows), self._sent(columns)
        found = self.norms.new_empty(len(columns))
        step = max(1, ELEMENTS // self.left.shape[1])
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            left = self.left[i[part]].to(torch.float64, copy=True)
            found[part] = left.mul_(self.right[j[part]]).sum(1)
        return as_array(found / self.norms[i])

    def _best(self, indices: Tensor, prices: Tensor) -> Tensor:
        """max_k (s_ij - p_j) of listed columns j = indices_ik of each row, float64."""
        best: Tensor = kernel("best_listed")(self.left, self.right, self.norms, prices, indices)
        return best

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
