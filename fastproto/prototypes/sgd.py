"""The paper's estimation of prototypes by stochastic gradient descent, for comparison: it ends far from the optimum."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor

from fastproto.ops.gaussian_potential import potential_and_pull
from fastproto.ops.sphere_step import sphere_step_
from fastproto.ops.uniformity_loss import FLOAT32_SHARPNESS
from fastproto.prototypes.budget import Budget
from fastproto.support.checks import real, whole
from fastproto.support.options import SgdForm

FORMS: tuple[SgdForm, ...] = get_args(SgdForm)


@torch.no_grad()
def sgd(
    points: Tensor,
    t: float,
    budget: Budget,
    *,
    form: SgdForm = "eq5",
    subset_size: int | None = None,
    lr: float = 0.1,
    iterations: int = 1000,
    seed: int = 0,
) -> Tensor:
    """``w[rows] = F.normalize(w[rows] - lr * gradient)`` for subsets of rows in shuffled order.

    A step is a fixed number of kernel launches without a device synchronisation: potential and pull, and on Triton one
    kernel that projects, steps and normalises. The values of L_uni are copied to the host in groups.

    Args:
        points: [C, D] unit rows.
        t: sharpness.
        budget: what may be spent; a step costs ĉC / C² passes, or ĉ² / C² within a batch.
        form: ``eq5``, the rows of the subset against all rows (Eq. 5); ``within_batch``, the pairs inside the subset
            (the authors' published code).
        subset_size: ĉ rows that move in one step; None is min(C, 100).
        lr: learning rate, for the gradient that is not scaled by C.
        iterations: steps.
        seed: of the shuffling.

    Raises:
        ValueError: t so large that the potential of a whole batch underflows.

    Source: Eq. 5 of Saadabadi et al., CVPR 2024, and its implementation details.
    """
    count = len(points)
    size = min(count, 100) if subset_size is None else subset_size
    generator = torch.Generator().manual_seed(seed)
    points = points.double() if t > FLOAT32_SHARPNESS else points.clone()
    velocity, waiting = points.new_zeros(size, points.shape[1]), torch.empty(0, dtype=torch.int64)
    cost = size / count if form == "eq5" else (size / count) ** 2
    try:
        for _ in range(iterations):
            if budget.over():
                break
            if len(waiting) < size:
                waiting = torch.randperm(count, generator=generator, device="cpu").to(points.device)
            rows, waiting = waiting[:size], waiting[size:]
            w = points[rows]
            potential, pull = potential_and_pull(w, None, t)
            if form == "eq5":  # a row is the first end of its pairs with all rows, the second end of the subset's pairs
                potential, far = potential_and_pull(w, points, t, rows)
                total, pull = size + potential.sum(0, keepdim=True), pull + far
                value = torch.log(total[0] / size)
            else:
                total, pull = potential.sum(0, keepdim=True), 2 * pull
                value = torch.log(total[0] / (size * (size - 1)))
            sphere_step_(w, velocity, pull, total, 2 * t, lr, 0.0)
            points.index_copy_(0, rows, w)
            budget.count(t, value, cost)
    except KeyboardInterrupt:
        budget.interrupted = True
    budget.read()
    if not bool(torch.isfinite(points).all()):
        raise ValueError(
            f"t is {t}, so sharp that every pair of a batch underflows; expected at most about 170: lower t"
        )
    return points


def check_sgd(
    num_classes: int, form: SgdForm, subset_size: int | None, lr: float, iterations: int
) -> tuple[int | None, float, int]:
    """The checked subset_size, lr and iterations of :func:`sgd`.

    Raises:
        TypeError, ValueError: an unknown form, a subset_size outside 2..C, lr <= 0, iterations < 1.
    """
    subset_size = None if subset_size is None else whole("subset_size", subset_size)
    lr, iterations = real("lr", lr), whole("iterations", iterations)
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {FORMS}")
    if subset_size is not None and not 2 <= subset_size <= num_classes:
        raise ValueError(f"subset_size is {subset_size}; expected 2..{num_classes}, the number of classes")
    if not 0 < lr < math.inf or iterations < 1:
        raise ValueError(f"lr is {lr} and iterations {iterations}; expected lr > 0 and at least one iteration")
    return subset_size, lr, iterations
