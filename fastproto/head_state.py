"""Prototypes and assignment of a head: initialised, read, and renewed on every rank from what rank 0 solves."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastproto.assignment import Alignment, Assignment, align, assign, in_background
from fastproto.cpu.huge_pages import ask_for_large_pages
from fastproto.prototypes import Prototypes, check_shape
from fastproto.support.checks import check_permutation, default_device
from fastproto.support.distributed import from_rank_0, in_process_group, rank_0_says
from fastproto.support.error_flags import BAD_ASSIGNMENT, NOT_FINITE, raise_bits, read_and_clear
from fastproto.support.guarded_module import GuardedState
from fastproto.support.loss_options import Means, NanPolicy
from fastproto.support.tracing import recording

Renewed = Assignment | Alignment
T = TypeVar("T")


class RenewableState(GuardedState):
    """Class means [C, D], and the assignment [C], prices [C] and prototypes [C, D] that are renewed from them."""

    class_means: Tensor
    prices: Tensor
    nan_policy: NanPolicy
    flag: Tensor  # int32 [1], bits of fastproto.support.error_flags
    _inverse: tuple[Tensor, Tensor] | None = None  # cache of predictions: an assignment and its inverse

    def settle(self) -> None:
        """Update the class means with the samples that are still being gathered from all ranks, if any."""

    def check_batches(self) -> None:
        """Report the bad samples that kernels left out since the last call; synchronises with the device.

        Raises:
            ValueError: labels, ``lam`` or entries of the assignment out of range, or NaN or inf in the features unless
                ``nan_policy`` is ``skip``; each is reported once.
        """
        self.settle()
        if self.flag.device.type != "meta":
            raise_bits(read_and_clear(self.flag) & ~(NOT_FINITE if self.nan_policy == "skip" else 0))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.check_batches()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    @torch.no_grad()
    def _label_of_row(self) -> Tensor:
        """A⁻¹ [C], always in 0..C-1. An assignment that is no permutation raises on the CPU, else sets a flag bit."""
        if torch.compiler.is_compiling() or recording():
            return torch.argsort(self._permutation())
        count, device = self.num_classes, self.assignment.device
        if device.type == "cpu" and self._inverse is not None and torch.equal(self._inverse[0], self.assignment):
            return self._inverse[1]
        label_of_row = torch.full_like(self.assignment, -1)
        within = self.assignment.clamp(0, count - 1)
        label_of_row.scatter_(0, within, torch.arange(count, device=device))
        bad = ((label_of_row < 0) | (within != self.assignment)).any()
        if device.type == "cpu":
            if bool(bad):
                check_permutation("assignment", self.assignment, count)
            self._inverse = self.assignment.clone(), label_of_row
            return label_of_row
        self.flag |= BAD_ASSIGNMENT * bad
        return label_of_row.clamp_min_(0)

    def __getstate__(self) -> dict[str, object]:
        return super().__getstate__() | {"_inverse": None}

    @torch.no_grad()
    def reassign(self, *, class_means: Tensor | None = None) -> Assignment:
        """Renew the assignment from the class means; rank 0 solves, every rank gets the same result.

        Args:
            class_means: [C, D], the same on every rank; None takes the head's own.

        Returns:
            the assignment now in force; ``changed`` is the number of labels with another prototype than before.

        Raises:
            TypeError, ValueError: bad samples in earlier batches (:meth:`check_batches`), or class means that
                :func:`fastproto.assign` refuses.

        Source: Eq. 8 of Saadabadi et al., CVPR 2024.
        """
        return self._adopt_assignment(self._on_rank_0(self._reassignment(class_means)))

    @torch.no_grad()
    def align(
        self,
        *,
        starts: int = 4,
        seed: int = 0,
        class_means: Tensor | None = None,
        time_limit: float | None = None,
    ) -> Alignment:
        """Rotate the prototypes and renew the assignment jointly; ``state_dict`` then holds the rotated prototypes.

        Args:
            starts: number of initial rotations, at least 1.
            seed: of the random rotations.
            class_means: [C, D], the same on every rank; None takes the head's own.
            time_limit: seconds, or None.

        Returns:
            the alignment, its assignment now in force; ``changed`` as for :meth:`reassign`.

        Raises:
            TypeError, ValueError: as :meth:`reassign`; ``starts`` below 1.
        """
        return self._adopt_alignment(self._on_rank_0(self._alignment(class_means, starts, seed, time_limit)))

    @torch.no_grad()
    def begin_renewal(self, *, aligned: bool = False, starts: int = 4, seed: int = 0) -> Future[Renewed]:
        """Start :meth:`reassign` (if ``aligned``, :meth:`align`) in a thread, on copies, while training continues.

        Pass the future to :meth:`finish_renewal` before any other renewal. Ranks other than 0 compute nothing.
        """
        self.settle()
        if in_process_group() and dist.get_rank() != 0:
            return Future()
        means = self.class_means.clone()
        problem: Callable[[], Renewed] = (
            self._alignment(means, starts, seed, None) if aligned else self._reassignment(means)
        )
        return in_background(problem, self.assignment.device)

    @torch.no_grad()
    def finish_renewal(self, renewal: Future[Renewed], *, wait: bool = True, adopt: bool = True) -> Renewed | None:
        """Adopt on every rank a renewal that :meth:`begin_renewal` started; an error of its thread is raised here.

        Returns None, with nothing changed, if it still runs and ``wait`` is False. ``adopt=False`` only waits for it.
        """
        if not wait and not rank_0_says(renewal.done(), self.assignment.device):
            return None
        found = self._on_rank_0(renewal.result)
        if not adopt:
            return found
        return self._adopt_alignment(found) if isinstance(found, Alignment) else self._adopt_assignment(found)

    def _reassignment(self, class_means: Tensor | None) -> Callable[[], Assignment]:
        means, prototypes = self._factors(class_means)
        return partial(assign, means, prototypes, previous=self._as_assignment())

    def _alignment(
        self, class_means: Tensor | None, starts: int, seed: int, time_limit: float | None
    ) -> Callable[[], Alignment]:
        means, prototypes = self._factors(class_means)
        return partial(align, means, prototypes, starts=starts, seed=seed, time_limit=time_limit)

    def _factors(self, class_means: Tensor | None) -> tuple[Tensor, Tensor]:
        """Class means (None: the head's own, read when the problem is solved) and prototypes."""
        self.settle()
        self._heal()
        return self.class_means if class_means is None else class_means, self.prototypes

    def _on_rank_0(self, compute: Callable[[], T]) -> T:
        """``compute()`` of rank 0, sent to every rank; bad samples of earlier batches raise first."""

        def checked() -> T:
            self.check_batches()
            return compute()

        return from_rank_0(checked, self.assignment.device) if in_process_group() else checked()

    def _adopt_alignment(self, found: Alignment) -> Alignment:
        """Rotate the prototypes and adopt the assignment."""
        with torch.autocast(self.prototypes.device.type, enabled=False):
            rotation = found.rotation.to(self.prototypes)
            self.prototypes.copy_(nn.functional.normalize(self.prototypes @ rotation, dim=1))
        return replace(found, assignment=self._adopt_assignment(found.assignment))

    def _adopt_assignment(self, found: Assignment) -> Assignment:
        """Replace the assignment and prices; ``changed`` counts the labels with another prototype than before."""
        found = replace(found, changed=int((found.permutation.to(self.assignment.device) != self.assignment).sum()))
        self.assignment.copy_(found.permutation)
        self.prices.copy_(found.prices)
        self._keep(decided=True)
        return found

    def _as_assignment(self) -> Assignment:
        return Assignment(
            permutation=self.assignment.clone(),
            prices=self.prices.clone(),
            objective=float("nan"),
            gap=float("inf"),
            relative_gap=float("inf"),
            rounding_floor=0.0,
            certified=False,
            changed=None,
            method="head",
            reason="the head's buffers",
            seconds=0.0,
            passes=0,
        )


def initial_means(means: Means, num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    """Class means [C, D] float32 on the CPU before the first sample: zero, or random unit rows for ``official``."""
    if means == "official":
        rows = torch.randn(num_classes, dim, generator=generator, device="cpu", dtype=torch.float32)
        return nn.functional.normalize(rows, dim=1)
    return ask_for_large_pages(torch.zeros(num_classes, dim, device="cpu", dtype=torch.float32))


def prepare_prototypes(
    given: Tensor | Prototypes | None, num_classes: int, dim: int, make: Callable[[], Tensor]
) -> Tensor:
    """Unit rows [C, D] float32 on the default device: the given ones, or those that rank 0 makes.

    On the meta device they stay empty, for a checkpoint to fill.
    """
    device = default_device()
    if given is not None:
        return check_shape(given, num_classes, dim).float().clone().to(device)
    if device.type == "meta":
        return torch.empty(num_classes, dim, dtype=torch.float32)
    return from_rank_0(make, device) if in_process_group() else make().to(device)
