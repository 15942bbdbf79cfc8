"""Where a search begins: random points, or copies of a small well spread set."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.prototypes.bounds import design_strength, uniformity_bound
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.codes import binary_code, code_capacity
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.stopping import NearTheEnd

PASSES = 400  # at most for one descent
WIDE = 200_000_000  # C²·D up to which descents are in float64
START_STRIDE = 1_000_003  # between the seeds of one search, so that neighbouring seeds share no start
COPIED = 5  # the strength of a design at which copies are the better start


def random_start(num_classes: int, dim: int, seed: int, device: torch.device | str | None = None) -> Tensor:
    """Independent uniform directions [C, D] in the dtype that descents of this size use; the same on every device.

    Large ones are normalised on the device in float64, so that its order of summation rarely changes a float32 number.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_classes, dim, generator=generator, dtype=torch.float32, device="cpu")
    if num_classes**2 * dim <= WIDE:
        return torch.nn.functional.normalize(points.double(), dim=1).to(device or "cpu")
    return torch.nn.functional.normalize(points.to(device or "cpu").double(), dim=1).float()


def random_value(num_classes: int, dim: int, t: float) -> float:
    """L_uni of independent uniform directions, the mean taken in expectation: log E exp(-2t(1 - cos))."""
    from scipy.special import ive  # the modified Bessel function, scaled by exp(-x)

    order, x = dim / 2 - 1, 2 * t
    scaled = float(ive(order, x))
    if scaled <= 0:  # underflow in many dimensions: cosines are normal with variance 1/D
        return -2 * t + 2 * t * t / dim
    return math.lgamma(dim / 2) + order * math.log(2 / x) + math.log(scaled)


def copies_are_better(num_classes: int, dim: int) -> bool:
    """Where C is between D² and D³/6, about: opposite pairs cost nothing there, and descents find them slowly."""
    return design_strength(num_classes, dim) == COPIED


def turned_copies(
    num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None = None
) -> Tensor:
    """Copies of a small well spread set, each turned at random, [C, D] float32.

    Where the small set balances harmonics of a degree, so do all its copies together. It is a binary code, where that
    is smaller than C; else a descent's end on some D²/2 points, and each copy comes with its opposite, which balances
    the odd degrees. A pass over the small set counts as the share of a pass that its pairs are.
    """
    capacity = code_capacity(dim)
    if 0 < 3 * capacity <= 2 * num_classes:
        base, opposite = binary_code(capacity, dim), False  # it has opposite pairs already
    else:
        size = math.ceil(num_classes / (2 * max(1, num_classes // dim**2)))
        base, opposite = _small_set(size, num_classes, dim, t, seed, budget, device), True
    generator = torch.Generator().manual_seed(seed + START_STRIDE // 2)
    points = torch.empty(num_classes, dim, dtype=torch.float32, device=device or "cpu")
    for part in points.split((1 + opposite) * len(base)):
        turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64, device="cpu"))[0]
        turned = torch.nn.functional.normalize(base @ turn.to(base.device), dim=1)
        part.copy_(torch.cat([turned, -turned] if opposite else [turned])[: len(part)])
    return points


def _small_set(
    size: int, num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None
) -> Tensor:
    """Where a descent on so many points ends, float64."""
    share = (size / num_classes) ** 2
    limit = None if budget.limit is None else int((budget.limit - budget.spent) / share)
    small = Budget(limit, budget.deadline)
    near = NearTheEnd(size, dim, random_value(size, dim, t), uniformity_bound(size, dim, t))
    start = random_start(size, dim, seed, device).float()
    base, _ = minimise(start, t, small, passes=PASSES, tolerance=0.0, precision="high", enough=near)
    budget.spent += small.spent * share
    budget.interrupted |= small.interrupted
    return base.double()
