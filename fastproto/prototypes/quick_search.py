"""The search of ``effort="normal"``: one descent that stops one percent before its end, in seconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.prototypes.bounds import uniformity_bound
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.codes import binary_code, code_capacity
from fastproto.prototypes.energy import PLAIN_SHARPNESS
from fastproto.prototypes.lbfgs import MEMORY
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.starts import (
    PASSES,
    SMALL,
    START_STRIDE,
    first_points,
    opposites_are_better,
    random_value,
    small_set,
    turned_copies,
)
from fastproto.prototypes.stopping import NearTheEnd
from fastproto.support.options import Precision

STARTS = 3  # where all together take half a second
MANY = 1_000_000  # numbers C·D from which L-BFGS keeps half as many pairs: more saved no passes, and cost time
MOST = 20_000_000_000_000  # numbers C²·D to look at in all passes, about five minutes on two cores, ...
FEWEST = 16  # ... but no fewer passes than this
TRUSTED = 100  # passes that must be allowed for the rule to say something of what is left
PASSES_OF_CODES = 20  # with fewer, copies of a whole binary code end lower than those of any other set
LARGE = 10_000_000_000  # numbers C²·D from which a start that costs passes over a quarter of the points saves more
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

    In float32 but for small C²·D. Notes in the budget whether the rule, and not a limit, was what ended it; where
    only few passes are made, the rule is not trusted.
    """
    size = num_classes**2 * dim
    random, bound = random_value(num_classes, dim, t), uniformity_bound(num_classes, dim, t)
    passes = min(PASSES, max(FEWEST, MOST // size))
    best, lowest = torch.empty(0), math.inf
    for k in range(max(1, min(STARTS, SMALL // (2 * size)))):
        points = _start(num_classes, dim, t, seed + START_STRIDE * k, budget, device)
        points = points.float() if size > SMALL and t <= PLAIN_SHARPNESS[torch.float32] else points
        near = NearTheEnd(num_classes, dim, random, bound)
        began, memory = budget.spent, MEMORY if points.numel() < MANY else MEMORY // 2
        points, value = minimise(
            points, t, budget, passes=passes, tolerance=TOLERANCE * (random - bound), precision=precision,
            memory=memory, enough=near,
        )  # fmt: skip
        budget.near_the_end = passes >= TRUSTED and not budget.over() and budget.spent < began + passes
        if value < lowest:
            best, lowest = points, value
        if budget.over():
            break
    return best


def _start(
    num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None
) -> Tensor:
    """As of any search; but for large C²·D copies of a small set, which are most of the way there."""
    size, capacity = num_classes**2 * dim, code_capacity(dim)
    if size < LARGE or not budget.affords(FEWEST):
        return first_points(num_classes, dim, t, seed, budget, device)
    if not opposites_are_better(num_classes, dim):
        base = small_set(math.ceil(num_classes / 4), num_classes, dim, t, seed, budget, device)
        return turned_copies(base, num_classes, seed)
    if size > MOST // PASSES_OF_CODES and 0 < 3 * capacity <= 2 * num_classes:
        return turned_copies(binary_code(capacity, dim).to(device or "cpu"), num_classes, seed)
    return first_points(num_classes, dim, t, seed, budget, device)
