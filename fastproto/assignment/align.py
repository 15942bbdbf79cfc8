"""Turn the prototypes so that the assignment fits better (Wasserstein-Procrustes); their pairwise geometry stays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment, directions
from fastproto.assignment.dispatch import assign

MAX_ROUNDS = 50


@dataclass(frozen=True)
class Alignment:
    """``rotation`` R [D, D] orthogonal (or a reflection); the assignment is to rows of ``prototypes @ rotation``."""

    rotation: Tensor
    assignment: Assignment


def align(class_means: Tensor, prototypes: Tensor, *, starts: int = 4, seed: int = 0) -> Alignment:
    """Maximise Σ_j q̂_j·(W R)_{A(j)} over permutations A *and* orthogonal R, by alternating the two.

    Each half-step is optimal given the other, so the objective never falls; the best of ``starts`` rotations (the first
    is the identity, the others random) is kept. A local optimum, not a certified one; the assignment given R is.

    Args:
        class_means: Q [C, D], any norms, zero rows left out.
        prototypes: W [C, D].
        starts: how many rotations to begin with, at least 1.
        seed: of the random rotations.

    Raises:
        TypeError, ValueError: as for :func:`fastproto.assignment.assign`; ``starts`` below 1.
    """
    if starts < 1:
        raise ValueError(f"starts is {starts}; expected at least 1")
    first = assign(class_means, prototypes)  # checks the input as well
    q, w = directions(class_means), prototypes.detach().double()
    generator = torch.Generator().manual_seed(seed)
    dim = w.shape[1]
    best: Alignment | None = None
    for start in range(starts):
        if start == 0:
            found = first
        else:
            rotation, _ = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))
            found = assign(q, w @ rotation.to(w.device))
        for _ in range(MAX_ROUNDS):
            u, _, vh = torch.linalg.svd(w[found.permutation].T @ q)
            rotation = u @ vh
            found = assign(q, w @ rotation, previous=found)
            if not found.changed:
                break
        if best is None or found.objective > best.assignment.objective:
            best = Alignment(rotation.to(prototypes.dtype), found)
    assert best is not None
    return best
