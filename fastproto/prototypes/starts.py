"""Where a search begins: random points, or copies of a small well spread set."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.prototypes.bounds import design_strength
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.optimise import minimise

PASSES = 400  # at most for one descent
WIDE = 200_000_000  # C²·D up to which descents are in float64
SMALL = 8_000_000  # C²·D, summed over the starts, up to which a search takes several
START_STRIDE = 1_000_003  # between the seeds of one search, so that neighbouring seeds share no start
SMALL_PASSES = 40  # for the set that is copied
PAIRED = 5  # the strength of a design, see design_strength, at which opposite pairs are best


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


def first_points(
    num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None = None
) -> Tensor:
    """Where a descent to a low L_uni begins, [C, D]: at random, or where C is between D² and D³/6, about, at copies.

    There descents from random points end higher: they find out slowly that opposite pairs, which balance the harmonics
    of odd degree, are best. The copies are of at most D² points, each beside its opposite.
    """
    if num_classes**2 * dim > SMALL and opposites_are_better(num_classes, dim) and budget.affords(2):
        size = math.ceil(num_classes / (2 * math.ceil(num_classes / (2 * dim**2))))
        base = small_set(size, num_classes, dim, t, seed, budget, device)
        return turned_copies(torch.cat([base, -base]), num_classes, seed)
    return random_start(num_classes, dim, seed, device)


def opposites_are_better(num_classes: int, dim: int) -> bool:
    return design_strength(num_classes, dim) == PAIRED


def small_set(
    size: int, num_classes: int, dim: int, t: float, seed: int, budget: Budget, device: torch.device | str | None
) -> Tensor:
    """What forty passes over so many points reach [size, D]; they count by the share of the C² pairs they look at."""
    share = (size / num_classes) ** 2
    start, small = random_start(size, dim, seed, device).float(), Budget(None, budget.deadline)
    if budget.limit is not None:
        small.limit = int((budget.limit - budget.spent - 1) / share)  # one is for the first look at the copies
    base, _ = minimise(start, t, small, passes=SMALL_PASSES, tolerance=0.0, precision="high")
    budget.spent += math.ceil(small.spent * share)
    budget.interrupted |= small.interrupted
    return base


def turned_copies(base: Tensor, num_classes: int, seed: int) -> Tensor:
    """Copies of unit rows, each turned at random, [C, D] in the width of a search of this size.

    The harmonics that the rows balance, all copies together balance as well.
    """
    dim = base.shape[1]
    generator = torch.Generator().manual_seed(seed + START_STRIDE // 2)
    width = torch.float64 if num_classes**2 * dim <= WIDE else torch.float32
    points = torch.empty(num_classes, dim, dtype=width, device=base.device)
    for part in points.split(len(base)):
        turn = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64, device="cpu"))[0]
        part.copy_(torch.nn.functional.normalize(base[: len(part)].double() @ turn.to(base.device), dim=1))
    return points
