"""``align``: turns the prototypes so that the assignment fits better (Wasserstein-Procrustes).

The pairwise geometry of the prototypes stays the same.
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
# Between two turns an assignment near the best one is enough: the next turn moves the target anyway.
INNER_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Alignment:
    """``rotation`` R [D, D] orthogonal (or a reflection); the assignment is to rows of ``prototypes @ rotation``."""

    rotation: Tensor
    assignment: Assignment
    objectives: tuple[float, ...] = ()  # what each start has reached: their spread tells if more starts would pay
    rounds: int = 0  # turns, over all starts
    stopped: Ending = "converged"  # or "time limit", "interrupted": the best found until then
    seconds: float = 0.0


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

    No half-step lowers the objective by more than the tolerance of its assignment, and the best of ``starts``
    rotations (the first is the identity, the others random) is kept: never worse than :func:`assign`. A local optimum,
    not a certified one; the assignment given R is certified. The objective is that of :func:`assign`, not centred:
    prototypes that sum to zero, as evenly spread ones do, give the same A and R for centred means.

    Args:
        class_means: Q [C, D], any norms; zero rows (unseen classes) have no say in R.
        prototypes: W [C, D], on the same device.
        starts: how many rotations to begin with, at least 1.
        seed: of the random rotations.
        time_limit: seconds; what was found until then is returned, as on Ctrl-C (see ``stopped``).

    Raises:
        TypeError, ValueError: as for :func:`fastproto.assignment.assign`; ``starts`` below 1.
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
    """:func:`align`, with any function for the assignments."""
    began = time.perf_counter()

    def left() -> float | None:
        return None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - began))

    best = assigner(class_means, prototypes, time_limit=time_limit)  # checks the input as well
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
        """Raises TimeoutError or KeyboardInterrupt where the search ends early."""
        found = self.best
        for start in range(starts):
            if start > 0:
                turned = self.w @ _random_rotation(self.w, generator)
                found = self.assigner(self.q, turned, tolerance=INNER_TOLERANCE, time_limit=self.left())
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
        # certified to the usual tolerance
        self.best = self.assigner(self.q, self.w @ self.rotation, previous=self.best, time_limit=self.left())

    def alternate(self, found: Assignment) -> Iterator[tuple[Tensor, Assignment]]:
        """Rotations with their assignments, one after the other, until no label moves."""
        for _ in range(MAX_ROUNDS):
            # On the CPU: [D, D] is small, and the turn is then the same whichever device the tensors are on.
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
    # Householder reflections alone always give the same handedness; with the signs, turns and mirrors are as likely.
    rotation: Tensor = q * r.diagonal().sign()
    return rotation.to(like.device)
