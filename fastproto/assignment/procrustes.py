"""``align``: rotates the prototypes to improve the assignment (Wasserstein-Procrustes).

A rotation keeps the cosines between the prototypes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from fastproto.assignment.api import assign
from fastproto.assignment.certificate import TOLERANCE, Assignment, Ending, directions
from fastproto.support.checks import check_seed, real, whole

MAX_ROUNDS = 50
# Tolerance of the assignments between two rotations: a near-optimal one is enough, since the next rotation changes it.
INNER_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Alignment:
    """An orthogonal matrix R and the assignment of the classes to the rows of ``prototypes @ rotation``."""

    rotation: Tensor  # R [D, D], a rotation or a reflection, in the dtype of the prototypes
    assignment: Assignment
    objectives: tuple[float, ...] = ()  # the objective that each start reached; a wide spread suggests more starts
    rounds: int = 0  # rotations computed, over all starts
    stopped: Ending = "converged"  # "time limit" or "interrupted": the result is the best so far
    seconds: float = 0.0  # wall-clock time of the call


class Assigner(Protocol):
    """:func:`fastproto.assignment.assign`, or a function with its signature."""

    def __call__(
        self,
        class_means: Tensor,
        prototypes: Tensor,
        *,
        previous: Assignment | None = None,
        tolerance: float = TOLERANCE,
        time_limit: float | None = None,
    ) -> Assignment: ...


def align(
    class_means: Tensor, prototypes: Tensor, *, starts: int = 4, seed: int = 0, time_limit: float | None = None
) -> Alignment:
    """Maximise Σ_j q̂_j·(W R)_{A(j)} over permutations A *and* orthogonal R, by alternating the two.

    ``u, _, vh = svd(w[permutation].T @ q); rotation = u @ vh; permutation = assign(q, w @ rotation).permutation``

    No half-step lowers the objective by more than the tolerance of its assignment. The best of ``starts`` initial
    rotations (the identity, then random ones) is kept, so that the result is never worse than :func:`assign`. It is a
    local optimum over R; given R, the assignment is certified. The objective is that of :func:`assign`, not centred:
    for prototypes that sum to zero, as evenly spread ones do, centring the class means changes neither A nor R.

    Args:
        class_means: Q [C, D] of any floating-point dtype, rows of any norm; zero rows (unseen classes) do not affect R.
        prototypes: W [C, D] of any floating-point dtype, on the same device.
        starts: number of initial rotations, at least 1.
        seed: seed of the random rotations.
        time_limit: seconds. At the time limit or at Ctrl-C the best result so far is returned (see ``stopped``).

    Returns:
        The rotation [D, D] on the device and in the dtype of ``prototypes``, and the assignment given it.

    Raises:
        TypeError, ValueError: as for :func:`fastproto.assignment.assign`; ``starts`` below 1; ``time_limit`` negative
            or not a number.

    Source: Grave, Joulin and Berthet, "Unsupervised Alignment of Embeddings with Wasserstein Procrustes", AISTATS 2019.
    """
    starts, seed = whole("starts", starts), check_seed(seed)
    if starts < 1:
        raise ValueError(f"starts is {starts}; expected at least 1")
    if time_limit is not None:
        time_limit = real("time_limit", time_limit)
        if not time_limit >= 0:
            raise ValueError(f"time_limit is {time_limit}; expected seconds >= 0, or None for no limit")
    return search_rotations(class_means, prototypes, starts=starts, seed=seed, time_limit=time_limit)


def search_rotations(
    class_means: Tensor,
    prototypes: Tensor,
    *,
    starts: int = 4,
    seed: int = 0,
    time_limit: float | None = None,
    assigner: Assigner = assign,
) -> Alignment:
    """:func:`align` without its checks, with any function for the assignments."""
    began = time.perf_counter()

    def left() -> float | None:
        return None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - began))

    best = assigner(class_means, prototypes, time_limit=time_limit)  # validates the inputs as well
    q, w = directions(class_means), prototypes.detach().double()
    search = _Search(q, w, assigner, left, torch.eye(w.shape[1], dtype=torch.float64, device=w.device), best)
    stopped: Ending = "converged"
    try:
        search.run(starts, torch.Generator(device="cpu").manual_seed(seed))
    except TimeoutError:
        stopped = "time limit"
    except KeyboardInterrupt:
        stopped = "interrupted"
    return Alignment(
        rotation=search.rotation.to(prototypes.dtype),
        assignment=replace(search.best, changed=None),
        objectives=tuple(search.objectives),
        rounds=search.rounds,
        stopped=stopped,
        seconds=time.perf_counter() - began,
    )


@dataclass
class _Search:
    q: Tensor
    w: Tensor
    assigner: Assigner
    left: Callable[[], float | None]  # seconds until the time limit
    rotation: Tensor  # the best so far, with its assignment
    best: Assignment
    objectives: list[float] = field(default_factory=list)
    rounds: int = 0

    def run(self, starts: int, generator: torch.Generator) -> None:
        """Runs all starts; raises TimeoutError or KeyboardInterrupt to end the search early."""
        found = self.best
        for start in range(starts):
            if start > 0:
                rotated = self.w @ _random_rotation(self.w, generator)
                found = self.assigner(self.q, rotated, tolerance=INNER_TOLERANCE, time_limit=self.left())
            if found.interrupted:
                raise KeyboardInterrupt
            self.objectives.append(found.objective)
            for rotation, better in self.alternate(found):
                self.rounds += 1
                self.objectives[-1] = max(self.objectives[-1], better.objective)
                if better.objective > self.best.objective:
                    self.rotation, self.best = rotation, better
                if self.left() == 0:
                    raise TimeoutError
        # the last assignment, to the default tolerance
        self.best = self.assigner(self.q, self.w @ self.rotation, previous=self.best, time_limit=self.left())
        if self.best.interrupted:
            raise KeyboardInterrupt
        if self.left() == 0 and not self.best.certified:
            raise TimeoutError

    def alternate(self, found: Assignment) -> Iterator[tuple[Tensor, Assignment]]:
        """Yields rotations with their assignments until no label changes its prototype."""
        for _ in range(MAX_ROUNDS):
            # SVD on the CPU: [D, D] is small, and the rotation is then the same on every device.
            u, _, vh = torch.linalg.svd((self.w[found.permutation].T @ self.q).cpu())
            rotation = (u @ vh).to(self.w.device)
            found = self.assigner(
                self.q, self.w @ rotation, previous=found, tolerance=INNER_TOLERANCE, time_limit=self.left()
            )
            yield rotation, found
            if found.interrupted:
                raise KeyboardInterrupt
            if not found.changed:
                return


def _random_rotation(like: Tensor, generator: torch.Generator) -> Tensor:
    dim = like.shape[1]
    normal = torch.randn(dim, dim, dtype=torch.float64, device="cpu", generator=generator)
    q, r = torch.linalg.qr(normal)
    # QR alone gives a biased distribution; the signs make it uniform over the orthogonal group (Mezzadri, 2007).
    rotation: Tensor = q * r.diagonal().sign()
    return rotation.to(like.device)
