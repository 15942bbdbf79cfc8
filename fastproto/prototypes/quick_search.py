"""The search of ``effort="normal"``: one descent that stops one percent before its end, in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.prototypes.bounds import uniformity_bound
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.energy import PLAIN_SHARPNESS
from fastproto.prototypes.lbfgs import MEMORY
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.starts import (
    PASSES,
    START_STRIDE,
    copies_are_better,
    random_start,
    random_value,
    turned_copies,
)
from fastproto.prototypes.stopping import NearTheEnd
from fastproto.support.options import Precision

STARTS = 3  # where all together take half a second
SMALL = 8_000_000  # numbers C²·D up to which a descent is in float64, from random points alone
MANY = 1_000_000  # numbers C·D from which L-BFGS keeps half as many pairs: more saved no passes, and cost time
MOST = 22_000_000_000_000  # numbers C²·D to look at in all passes, about five minutes on two cores, ...
FEWEST = 16  # ... but no fewer passes than this
TOLERANCE = 2e-4  # of the way from random to the bound: what 20 passes must gain


def search_quickly(
    num_classes: int,
    dim: int,
    t: float,
    seed: int,
    budget: Budget,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "high",
) -> Tensor:
    """The lowest L_uni of one descent, or of three where C²·D is small, that ends by the rule of :class:`NearTheEnd`.

    Begins at random points, or at copies of a small set where these were seen to be better. Notes in the budget whether
    the rule, and not a limit, was what ended it.
    """
    size = num_classes**2 * dim
    random, bound = random_value(num_classes, dim, t), uniformity_bound(num_classes, dim, t)
    passes = min(PASSES, max(FEWEST, MOST // size))
    best, lowest = torch.empty(0), math.inf
    for k in range(max(1, min(STARTS, SMALL // (2 * size)))):
        points = _start(num_classes, dim, t, seed + START_STRIDE * k, budget, device)
        near = NearTheEnd(num_classes, dim, random, bound)
        began, memory = budget.spent, MEMORY if points.numel() < MANY else MEMORY // 2
        points, value = minimise(
            points, t, budget, passes=passes, tolerance=TOLERANCE * (random - bound), precision=precision,
            memory=memory, enough=near,
        )  # fmt: skip
        budget.near_the_end = not budget.over() and budget.spent < began + passes
        if value < lowest:
            best, lowest = points, value
        if budget.over():
            break
    return best


def _start(
    num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None
) -> Tensor:
    size = num_classes**2 * dim
    if size > SMALL and copies_are_better(num_classes, dim):
        return turned_copies(num_classes, dim, t, seed, budget, device)
    points = random_start(num_classes, dim, seed, device)
    return points.float() if size > SMALL and t <= PLAIN_SHARPNESS[torch.float32] else points
