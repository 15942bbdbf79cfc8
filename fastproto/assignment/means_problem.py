"""The problem that ``assign`` solves: class means, prototypes, unseen classes, a previous result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.array_types import Bools, Floats, Ints
from fastproto.assignment.certificate import Certificate, Yardstick
from fastproto.assignment.matching import Previous

OUTLIER = 100  # times the typical length: a longer prototype leaves rounded passes no digits for the others


@dataclass(frozen=True)
class Lengths:
    """The lengths of the prototypes, with statistics that a few long ones do not dominate."""

    each: Tensor  # [C] float64, on the CPU
    typical: float  # the median of the nonzero lengths
    outliers: bool  # whether some are more than OUTLIER times longer
    share: float  # typical / root mean square, at most 1: scales the std of the scores

    @classmethod
    def of(cls, each: Tensor) -> Lengths:
        lengths = each.numpy()
        low, largest = float(lengths.min()), float(lengths.max())
        rms = float(lengths @ lengths / len(lengths)) ** 0.5
        if largest <= 2 * low or largest == 0:
            return cls(each, rms, False, 1.0)
        typical = float(np.median(lengths[lengths > 0]))
        return cls(each, typical, largest > OUTLIER * typical, min(1.0, typical / rms))


@dataclass(frozen=True)
class MeansProblem:
    """The factors are on their device, everything else is on the CPU."""

    class_means: Tensor
    norms: Tensor  # [C] float64, of the class means
    prototypes: Tensor
    lengths: Lengths
    unseen: Bools  # [C]: classes that were never seen; the objective leaves them out
    previous: Previous | None
    tolerance: float
    deadline: float | None
    progress: bool

    @property
    def size(self) -> int:
        return len(self.unseen)

    @property
    def device(self) -> torch.device:
        return self.class_means.device

    @cached_property
    def complete(self) -> bool:
        """Whether every class was seen."""
        return not bool(self.unseen.any())

    def late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline

    def yardstick(self, spread: float) -> Yardstick:
        return Yardstick(self.size, self.lengths.share * spread, self.tolerance)

    def certificate(
        self, spread: float, objective: float, gap: float, permutation: Ints, prices: Floats
    ) -> Certificate:
        """``prices`` are those of :meth:`final_prices`."""
        lengths = self.lengths.each.numpy()
        if not self.complete:
            lengths = lengths[permutation[~self.unseen]]
        magnitude = float(lengths.sum() + np.abs(prices).sum())
        return self.yardstick(spread).judge(objective, gap, magnitude)

    def final_prices(self, prices: Floats) -> Floats:
        """Prices shifted so that the left-over prototypes, which have the lowest price, are at 0."""
        return prices if self.complete else prices - prices.min()

    def with_unseen(self, columns: Ints) -> Ints:
        """The full permutation; ``columns`` are the prototypes of the seen classes.

        An unseen class keeps its previous prototype if that is free; the others take the rest in order.
        """
        if self.complete:
            return columns
        permutation = np.empty(self.size, dtype=np.int64)
        permutation[~self.unseen] = columns
        free, waiting = np.ones(self.size, dtype=bool), self.unseen
        free[columns] = False
        if self.previous is not None:
            keeps = self.unseen & free[self.previous.permutation]
            kept = self.previous.permutation[keeps]
            permutation[keeps], free[kept] = kept, False
            waiting = self.unseen & ~keeps
        permutation[waiting] = np.flatnonzero(free)
        return permutation
