"""The scores of column generation on a GPU: each pass is one Triton kernel that fuses the product and the top-k.

Only lists [C, k], prices and permutations are copied between device and host, with two or three synchronisations per
pass. The list solver runs on the CPU. A score is the sum of three float16 products, as exact as a float32 product;
pairs that this leaves undecided are computed in float64, on the device.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.array_types import Floats, Floats32, Ints, Ints32
from fastproto.assignment.scores import EPS, EVERY, LEAST_OVERLAP, PerRow, Rows
from fastproto.backend import kernel

MAX_PLACES = 32  # the largest k of the top_scores kernel
PRECISION = "higher"
# Enough for the exponents of a Sinkhorn step, where the rounding errors of the D entries average out.
MASS_PRECISION = "medium"
BLOCK_ELEMENTS = 1 << 24  # float64 numbers per block: 128 MiB


class GpuFactorScores:
    """s_ij = q̂_i·w_j. The kernels use centred and scaled r_ij: s_ij - p_j = unit (r_ij - shifted p_j) + row_shift_i.

    Centring does not change the optimal assignment. It saves the digits of the float16 factors for the differences
    between the scores.
    """

    def __init__(
        self, class_means: Tensor, norms: Tensor, prototypes: Tensor, block_elements: int = BLOCK_ELEMENTS
    ) -> None:
        """``block_elements``: the number of float64 scores per block."""
        self.block_elements = block_elements
        self.left, self.right, self.norms = class_means.contiguous(), prototypes.contiguous(), norms.contiguous()
        self.shape = (len(class_means), len(prototypes))
        centred = kernel("centre_factors")(self.left, self.norms, self.right)
        self.points, self.others = centred.points, centred.others
        self._device_facts = centred.facts
        host = centred.facts_on_host()
        self.unit, self.mean, self.magnitude = float(host.unit), float(host.offset), float(host.magnitude)
        self.error, self.row_shift, self.column_shift = map(_to_host, (host.error, host.row_shift, host.column_shift))
        squares, most = float(host.square_sum), host.gram_norms.tolist()
        if squares < LEAST_OVERLAP * most[0] * most[1]:  # the rounding to bfloat16 may dominate them
            x, y = self.points.double(), self.others.double()
            squares = float(((x.T @ x) * (y.T @ y)).sum())
        self.spread = self.unit * (max(squares, 0.0) / max(self.shape[0] * self.shape[1], 1)) ** 0.5

    def margin(self, prices: Floats) -> Floats:
        return self.error + self._price_error(prices)

    def _price_error(self, prices: Floats) -> float:
        return 2 * EPS * float(np.abs(prices - self.column_shift).max())

    def column_mass(self, prices: Floats, temperature: float, every: int) -> Floats:
        _, mass = kernel("sinkhorn_sweep")(
            self.points[::every],
            self.others,
            self._to_device(self._in_units(prices)),
            epsilon=temperature / self.unit,
            precision=MASS_PRECISION,
        )
        return _to_host(mass.exp().double())

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        shift = self.row_shift[rows]
        low = None if floor is None else self._to_device(((floor[rows] - shift) / self.unit).astype(np.float32))
        values, indices = kernel("top_scores")(
            self.points[rows if isinstance(rows, slice) else self._to_device(rows)],
            self.others,
            min(k, MAX_PLACES),
            prices=self._to_device(self._in_units(prices)),
            floor=low,
            precision=PRECISION,
        )
        found = _to_host(values.double()) * self.unit + shift[:, None], _columns_to_host(indices)
        if k <= MAX_PLACES:
            return found
        values, indices = np.full((len(shift), k), -np.inf), np.full((len(shift), k), -1, np.int32)
        values[:, :MAX_PLACES], indices[:, :MAX_PLACES] = found
        full = np.nonzero(found[1][:, -1] >= 0)[0]
        which = np.arange(self.shape[0])[rows][full]
        values[full], indices[full] = self._long_lists(which, prices, k, None if floor is None else floor[which])
        return values, indices

    def recheck(self, columns: Ints, prices: Floats, places: int) -> tuple[float, float] | None:
        """As :meth:`Scores.recheck`, on the device: one synchronisation if no row is crowded."""
        j, p, shifted = self._to_device(columns), self._to_device(prices), self._to_device(self._in_units(prices))
        error, row_shift = self._device_facts.error, self._device_facts.row_shift
        own = self._best(j[:, None], p)
        _, indices = kernel("top_scores")(
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
        if more * self.shape[1] > self.block_elements:
            return None
        if more:
            some = crowded.nonzero().squeeze(1)
            best[some] = torch.maximum(best[some], (self._rows(some) - p).amax(1))
            gap = float((best - own).sum())
        return gap, total + float(prices[columns].sum())

    def exact(self, rows: Ints32, columns: Ints32) -> Floats:
        i, j = self._to_device(rows), self._to_device(columns)
        found = self.norms.new_empty(len(columns))
        step = max(1, self.block_elements // self.left.shape[1])
        for start in range(0, len(columns), step):
            part = slice(start, start + step)
            left = self.left[i[part]].to(torch.float64, copy=True)
            found[part] = left.mul_(self.right[j[part]]).sum(1)
        return _to_host(found / self.norms[i])

    def _best(self, indices: Tensor, prices: Tensor) -> Tensor:
        """max_k (s_ij - p_j) over the listed columns j = indices_ik of each row, float64."""
        best: Tensor = kernel("best_listed")(self.left, self.right, self.norms, prices, indices)
        return best

    def exact_rows(self, rows: Ints) -> Floats:
        return _to_host(self._rows(self._to_device(rows)))

    def _rows(self, rows: Tensor) -> Tensor:
        return self.left[rows].double() @ self.right.double().T / self.norms[rows, None]

    def _long_lists(self, rows: Ints, prices: Floats, k: int, floor: PerRow) -> tuple[Floats, Ints32]:
        """Top-k in float64 for the few rows that need more than MAX_PLACES columns, one block of rows at a time."""
        values = np.empty((len(rows), k))
        indices = np.empty((len(rows), k), np.int32)
        step = max(1, self.block_elements // self.shape[1])
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            best = (self._rows(self._to_device(rows[part])) - self._to_device(prices)).topk(k)
            values[part], indices[part] = _to_host(best.values), _columns_to_host(best.indices)
        if floor is not None:
            below = values < floor[:, None]
            values[below], indices[below] = -np.inf, -1
        return values, indices

    def _in_units(self, prices: Floats) -> Floats32:
        shifted: Floats32 = ((prices - self.column_shift) / self.unit).astype(np.float32)
        return shifted

    def _to_device(self, array: Floats | Floats32 | Ints | Ints32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.left.device)


def _to_host(tensor: Tensor) -> Floats:
    """Device-to-host copy of a float64 tensor."""
    array: Floats = tensor.cpu().numpy()
    return array


def _columns_to_host(indices: Tensor) -> Ints32:
    array: Ints32 = indices.to(torch.int32).cpu().numpy()
    return array
