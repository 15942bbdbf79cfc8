"""The paper's own way to prototypes, plain stochastic gradient descent: a comparison, far from the optimum."""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.functional import uniformity_loss
from fastproto.prototypes.optimise import Effort

FORMS = ("eq5", "within_batch")


def sgd(
    points: Tensor,
    t: float,
    effort: Effort,
    *,
    form: str = "eq5",
    subset_size: int | None = None,
    lr: float = 0.1,
    iterations: int = 1000,
    seed: int = 0,
) -> Tensor:
    """``w[rows] = F.normalize(w[rows] - lr * gradient)`` for subsets of rows that run through a shuffled order.

    Args:
        points: [C, D] unit rows.
        t: sharpness.
        effort: what may be spent; a step costs ĉC / C² passes, or ĉ² / C² within a batch.
        form: ``eq5``, the rows of the subset against all rows (Eq. 5); ``within_batch``, the pairs inside the subset
            (the authors' published code).
        subset_size: ĉ rows that move in one step; None is min(C, 100).
        lr: learning rate of the gradient as it is, not scaled by C.
        iterations: steps.
        seed: of the shuffling.

    Source: Eq. 5 of Saadabadi et al., CVPR 2024, and its implementation details.
    """
    count = len(points)
    size = min(count, 100) if subset_size is None else subset_size
    generator = torch.Generator().manual_seed(seed)
    points, waiting = points.clone(), torch.empty(0, dtype=torch.int64)
    cost = size / count if form == "eq5" else (size / count) ** 2
    try:
        for _ in range(iterations):
            if effort.over():
                break
            if len(waiting) < size:
                waiting = torch.randperm(count, generator=generator, device="cpu")
            rows, waiting = waiting[:size].to(points.device), waiting[size:]
            if form == "eq5":
                w = points.clone().requires_grad_()
                value = uniformity_loss(w, t=t, subset=rows, form="eq5")
                gradient = torch.autograd.grad(value, w)[0][rows]
            else:
                w = points[rows].requires_grad_()
                value = uniformity_loss(w, t=t)
                gradient = torch.autograd.grad(value, w)[0]
            points[rows] = torch.nn.functional.normalize(points[rows] - lr * gradient, dim=1)
            effort.count(t, float(value.detach()), cost)
    except KeyboardInterrupt:
        effort.interrupted = True
    return points


def check_sgd(num_classes: int, form: str, subset_size: int | None, lr: float, iterations: int) -> None:
    """What :func:`sgd` takes.

    Raises:
        ValueError: anything else.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {FORMS}")
    if subset_size is not None and not 2 <= subset_size <= num_classes:
        raise ValueError(f"subset_size is {subset_size}; expected 2..{num_classes}, the number of classes")
    if not lr > 0 or iterations < 1:
        raise ValueError(f"lr is {lr} and iterations {iterations}; expected lr > 0 and at least one iteration")
