"""Errors against float64, and whether repeated calls give the same bits."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from fastproto_kernels.gaussian_potential import gaussian_potential as gaussian_kernel
from fastproto_kernels.lib.tile_sizes import PRECISIONS
from torch import Tensor

from fastproto import reference
from fastproto.functional import gaussian_potential
from lib.gpu_check.measuring import device, passes, unit_rows
from lib.gpu_check.steps import Entries


def accuracy(dry: bool) -> Entries:
    """Error of the tangent gradient relative to its norm, and of the potential relative to itself, against float64."""
    for dim, precision in itertools.product((16,) if dry else (64, 128, 256, 512, 1024), PRECISIONS):
        count = 40 if dry else 8000
        w = unit_rows(count, dim)
        potential, pull = passes(count, dim, precision)()
        true_potential, true_pull = reference.gaussian_potential(
            w.double(), w.double(), 2.0, torch.arange(count, device=device())
        )
        error, wide = pull.double() - true_pull, w.double()
        error, truth = (x - (x * wide).sum(1, keepdim=True) * wide for x in (error, true_pull))
        yield (
            f"{precision} D={dim}",
            {
                "gradient": float(error.norm() / truth.norm()),
                "potential": float(((potential.double() - true_potential) / true_potential).abs().max()),
            },
        )


def large(dry: bool) -> Entries:
    """Error of the pull at large C and weighted, on 256 rows: it grows with C if rounding is coherent."""
    shapes = ((40, 16),) if dry else ((100_000, 16), (100_000, 128), (1_000_000, 64))
    for (count, dim), weighted in itertools.product(shapes, (False, True)):
        w, weights = unit_rows(count, dim), torch.rand(count, device=device()) if weighted else None
        rows = torch.arange(min(256, count), device=device())
        heavy = None if weights is None else weights.double()
        true = reference.gaussian_potential(w[rows].double(), w.double(), 2.0, rows, heavy)[1]
        for precision in ("highest",) if dry else ("medium", "high", "highest"):  # no bfloat16 under the interpreter
            pull = gaussian_kernel(w[rows], w, t=2.0, self_index=rows, weights=weights, precision=precision)[1]
            error = float((pull.double() - true).norm() / true.norm())
            yield f"{precision} C={count} D={dim}{' weighted' if weighted else ''}", error


def determinism(dry: bool) -> Entries:
    for dim, precision in itertools.product((16,) if dry else (64, 512), PRECISIONS):
        yield f"{precision} D={dim}", bits(passes(40 if dry else 8000, dim, precision, parts=3))
    count = 40 if dry else 6000  # enough points for the cuBLAS path on a GPU
    w, own = unit_rows(count, 96), torch.arange(count, device=device())
    for name, weights in (("all pairs", None), ("all pairs, weighted", torch.rand(count, device=device()))):
        pull = gaussian_potential(w, weights=weights)[1]
        same = bits(lambda weights=weights: gaussian_potential(w, weights=weights))  # type: ignore[misc]
        heavy = None if weights is None else weights.double()
        true = reference.gaussian_potential(w.double(), w.double(), 2.0, own, heavy)[1]
        yield f"highest, {name}", {"bits": same, "error": float((pull - true).norm() / true.norm())}


def bits(call: Callable[[], tuple[Tensor, Tensor]]) -> str:
    """Whether five calls give the same bits."""
    first = call()
    same = all(torch.equal(a, b) for _ in range(4) for a, b in zip(first, call(), strict=True))
    return "same bits" if same else "DIFFERENT BITS"
