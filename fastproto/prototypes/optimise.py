"""Descent on the product of C spheres by L-BFGS.

A pass is one evaluation of the potential and its gradient over all pairs; every evaluation of the line search counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastproto.ops.sphere_step import tangent
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.energy import Energy, energy
from fastproto.prototypes.lbfgs import MEMORY, History, Preconditioner
from fastproto.support.options import PassPrecision

LONGEST = 1.0  # no point moves farther than this in one step (before it is normalised)
ARMIJO = 1e-4
PATIENCE = 20  # a descent that gains less than its tolerance in so many passes stops


def minimise(
    points: Tensor,
    t: float,
    budget: Budget,
    *,
    passes: int,
    tolerance: float,
    precision: PassPrecision = "highest",
    memory: int = MEMORY,
    enough: Callable[[float, float], bool] | None = None,
) -> tuple[Tensor, float]:
    """Lower L_uni at sharpness t from unit rows [C, D]; returns the points reached and their value.

    Stops after ``passes``, when the last 20 have gained less than ``tolerance``, when ``enough(passes, value)`` is true
    after a step, when no step lowers the value, when the budget is over, or on Ctrl-C (recorded in the budget).
    ``memory`` is that of L-BFGS, in pairs. The points returned are the best seen.
    """
    evaluate, history, count = energy(t, precision), History(points, memory), len(points)
    began, end, values = budget.spent, budget.spent + passes, []
    value = math.inf
    try:
        value, gradient = evaluate(points)
        budget.count(t, value)
        if enough is not None and enough(1, value):
            return points, value
        slack = _slack(points.dtype, value, precision)
        while budget.spent < end and not budget.over():
            precondition = Preconditioner(points, t)
            if history.order:
                direction = -tangent(points, history.solve(gradient, precondition))
            else:
                direction = tangent(points, precondition.whole(gradient)).mul_(-0.1 / t)
            longest = torch.linalg.vector_norm(direction, dim=1).max()
            slope, farthest = torch.stack([(direction * gradient).sum() / count, longest]).tolist()
            found = None
            if slope < 0:
                size = min(1.0, LONGEST / farthest)
                found = _line_search(evaluate, points, value, direction, size, slope, slack, budget, t, end)
            if found is None:
                if not history.order:
                    break
                history.clear()
                continue
            moved, step, new_value, new_gradient = found
            history.add(tangent(moved, step), new_gradient - tangent(moved, gradient))
            points, value, gradient = moved, new_value, new_gradient
            if enough is not None and enough(budget.spent - began, value):
                return points, value
            values.append((budget.spent, value))
            while values[0][0] < budget.spent - PATIENCE:
                before = values.pop(0)[1]
                if before - value < tolerance and values[0][0] >= budget.spent - PATIENCE:
                    return points, value
    except KeyboardInterrupt:
        budget.interrupted = True
    return points, value


def _slack(dtype: torch.dtype, value: float, precision: PassPrecision) -> float:
    """The apparent increase of the value that rounding may cause."""
    if dtype == torch.float64:
        return 1e-14 * abs(value)
    return {"highest": 1e-7, "higher": 1e-7, "high": 1e-6, "medium": 1e-5}[precision] * abs(value)


def _line_search(
    evaluate: Energy,
    points: Tensor,
    value: float,
    direction: Tensor,
    size: float,
    slope: float,
    slack: float,
    budget: Budget,
    t: float,
    end: float,
) -> tuple[Tensor, Tensor, float, Tensor] | None:
    """Backtrack until the decrease is sufficient (Armijo): new points, the step taken, value and gradient there."""
    while size > 1e-8 and budget.spent < end and not budget.over():
        step = direction * size
        moved = torch.nn.functional.normalize(points + step, dim=1)
        new_value, gradient = evaluate(moved)
        accepted = new_value <= value + ARMIJO * size * slope + slack
        budget.count(t, min(new_value, value) if accepted else value)
        if accepted:
            return moved, step, new_value, gradient
        minimum = -slope * size * size / (2 * (new_value - value - slope * size))  # of the parabola through both
        size = min(max(minimum, 0.1 * size), 0.5 * size)
    return None
