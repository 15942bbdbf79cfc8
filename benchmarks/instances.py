"""Inputs of the benchmarks: the same on every run of a size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .timing import ROTATED

Pair = tuple[Tensor, Tensor]
SEQUENTIAL = "the exact solver on the lists runs in one thread"
"""What threads wait for in an assignment."""
IN_TURN = "terms are added to a sum in order; up to C = 2,304 threads share each product, not the rows of blocks"
"""What threads wait for in a pass of the Gaussian potential."""


def unit_rows(count: int, dim: int, device: torch.device | str = "cpu", seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=generator), dim=1).to(device)


def batches(batch: int, classes: int, dim: int, device: torch.device) -> list[Pair]:
    """Features [B, D] and labels [B] of some batches, so that rows of prototypes and class means do not stay cached."""
    generator = torch.Generator().manual_seed(1)
    drawn = [
        (torch.randn(batch, dim, generator=generator), torch.randint(0, classes, (batch,), generator=generator))
        for _ in range(ROTATED)
    ]
    return [(features.to(device), labels.to(device)) for features, labels in drawn]


def matching(kind: str, classes: int, dim: int, device: torch.device | str = "cpu", seed: int = 0) -> Pair:
    """Class means and prototypes; the means are ``clustered``, as if untrained, or ``easy``, each near a prototype."""
    generator = torch.Generator().manual_seed(seed)

    def directions(rows: int) -> Tensor:
        return normalize(torch.randn(rows, dim, generator=generator), dim=1)

    prototypes = directions(classes)
    if kind == "easy":
        means = 0.7 * prototypes[torch.randperm(classes, generator=generator)] + 0.7 * directions(classes)
    else:
        groups = torch.randint(0, max(classes // 20, 2), (classes,), generator=generator)
        means = directions(1) + directions(max(classes // 20, 2))[groups] + 0.7 * directions(classes)
    return normalize(means, dim=1).to(device), prototypes.to(device)
