"""Descent on the product of C spheres: L-BFGS with a preconditioner made for the Gaussian potential.

A pass is one evaluation of the potential and its gradient over all pairs; every evaluation of the line search counts.
The gradient is scaled by C: with the plain gradient of L_uni a step of the paper's size 0.1 moves a point by O(1/C).

Near an even spread the scaled Hessian has three well separated parts, in units of the first (k = 2t): moving all points
along one direction 1, shearing them by one symmetric matrix ~2k/D, the rest ~3k²/D². The first two are D and D²/2
dimensional, so they can be projected out in O(C·D²), and the curvature that L-BFGS must learn is that of the rest. The
preconditioner is MᵀM with M a product of symmetric factors: positive definite whatever the points are.

L-BFGS pairs are kept as they were measured, not transported from tangent space to tangent space: the direction is
projected once at the end, PHPᵀ is positive definite like H, and transport was seen to save no passes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastproto.backend import resolve
from fastproto.ops.gaussian_potential import largest_cosine, potential_and_pull
from fastproto.ops.nearest_prototypes import BLOCK
from fastproto.ops.sphere_step import tangent

Energy = Callable[[Tensor], tuple[float, Tensor]]  # unit rows [C, D] -> L_uni and C times its tangent gradient

MEMORY = 10  # pairs that L-BFGS keeps: 20 and 40 saved no passes at (200, 50) and (1000, 64)
LONGEST = 1.0  # no point moves farther than this in one step (before it is put back on the sphere)
ARMIJO = 1e-4
READ_TOGETHER = 50  # values of L_uni
PATIENCE = 20  # passes over which a descent must have gained its tolerance
# In these widths exp(-4t) is still a normal number; a sharper potential is summed relative to its largest term.
PLAIN_SHARPNESS = {torch.float32: 16.0, torch.float64: 128.0}


@dataclass
class Effort:
    """What has been spent, what may be, and what was seen on the way."""

    limit: int | None = None  # passes
    deadline: float | None = None  # of time.perf_counter()
    progress: bool = False
    spent: float = 0.0
    interrupted: bool = False
    trace: list[tuple[float, float, float]] = field(default_factory=list)  # passes spent, t, L_uni of the last iterate
    unread: list[tuple[float, float, Tensor]] = field(default_factory=list)  # the same, its L_uni still on the device

    def over(self) -> bool:
        if self.interrupted or (self.limit is not None and self.spent >= self.limit):
            return True
        return self.deadline is not None and time.perf_counter() >= self.deadline

    def affords(self, passes: float) -> bool:
        return not self.over() and (self.limit is None or self.spent + passes <= self.limit)

    def count(self, t: float, value: float | Tensor, passes: float = 1.0) -> None:
        """Notes an evaluation; a value given as a scalar tensor is read later, with others, not to wait for each."""
        self.spent += passes
        if isinstance(value, Tensor):
            self.unread.append((self.spent, t, value))
            if len(self.unread) == READ_TOGETHER:
                self.read()
        else:
            self._note(self.spent, t, value)

    def read(self) -> None:
        if self.unread:
            values = torch.stack([value for _, _, value in self.unread]).tolist()
            for (spent, t, _), value in zip(self.unread, values, strict=True):
                self._note(spent, t, value)
            self.unread.clear()

    def _note(self, spent: float, t: float, value: float) -> None:
        self.trace.append((spent, t, value))
        if self.progress:
            limit = "" if self.limit is None else f" of {self.limit}"
            print(f"\rprototypes: pass {spent:.0f}{limit}, t = {t:g}, L_uni {value:.7f} ", end="", file=sys.stderr)

    def finish(self) -> None:
        self.read()
        if self.progress and self.trace:
            print(file=sys.stderr)


def energy(t: float, precision: str = "highest") -> Energy:
    """L_uni at sharpness t and C times its tangent gradient, one pass.

    ``precision`` as in :func:`fastproto.ops.gaussian_potential.potential_and_pull`; the points are not looked at.
    """

    def evaluate(points: Tensor) -> tuple[float, Tensor]:
        count = len(points)
        if t <= PLAIN_SHARPNESS[points.dtype]:
            potential, pull = potential_and_pull(points, None, t, precision=precision)
            total, top = float(potential.double().sum()), 1.0
        else:
            sums, pull = _sharp_potential(points, t)
            total, top = sums.tolist()  # what the line search decides with: read once for each evaluation
        value = 2 * t * (top - 1) + math.log(total / (count * (count - 1)))
        return value, tangent(points, pull).mul_(4 * t * count / total)

    return evaluate


def _sharp_potential(points: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Σ exp(2t(s - top)) over i ≠ j and top, the largest cosine s, [2]; the same weights times w_j [C, D]."""
    if resolve("gaussian_potential", points).backend == "triton":
        centre = largest_cosine(points)
        potential, pull = potential_and_pull(points, None, t, centre=centre)
        return torch.stack([potential.double().sum(), centre.double().squeeze()]), pull
    total, pull = points.new_zeros((), dtype=torch.float64), torch.zeros_like(points)
    top = torch.full_like(total, -torch.inf)
    for start in range(0, len(points), BLOCK):
        rows = slice(start, start + BLOCK)
        for column in range(0, len(points), BLOCK):
            others = points[column : column + BLOCK]
            cosines = points[rows] @ others.T
            if column == start:
                cosines.fill_diagonal_(-torch.inf)
            peak = torch.maximum(top, cosines.max().double())
            fade = torch.exp(2 * t * (top - peak))
            top, total, pull = peak, total * fade, pull.mul_(fade)
            weights = cosines.sub_(top).mul_(2 * t).exp_()
            total += weights.sum(dtype=torch.float64)
            pull[rows] += weights @ others
    return torch.stack([total, top]), pull


class Preconditioner:
    """MᵀM ≈ the inverse Hessian near an even spread, up to a factor; M = (I - a₂Π₂)(I - a₁Π₁).

    Π₁ projects on moving all points along one direction, Π₂ on shearing them by a symmetric traceless matrix.
    """

    def __init__(self, points: Tensor, t: float) -> None:
        dim = points.shape[1]
        frame = min(1.0, 4 * t / dim)
        rest = min(frame, 12 * t * t / dim**2)
        self.points = points
        self.shift, self.shear = 1 - math.sqrt(rest), 1 - math.sqrt(rest / frame)

    def half(self, field: Tensor) -> Tensor:
        """M times a tangent field [C, D]."""
        return self._without_shear(self._without_shift(field))

    def whole(self, field: Tensor) -> Tensor:
        """MᵀM times a tangent field."""
        return self._without_shift(self._without_shear(self.half(field)))

    def _without_shift(self, field: Tensor) -> Tensor:
        if self.shift == 0:
            return field
        dim = field.shape[1]
        mean = (field.mean(0) * (self.shift * dim / (dim - 1))).expand_as(field)
        return field - tangent(self.points, mean)

    def _without_shear(self, field: Tensor) -> Tensor:
        if self.shear == 0:
            return field
        count, dim = field.shape
        matrix = self.points.T @ field
        matrix = (matrix + matrix.T).mul_(self.shear * (dim + 2) / (2 * count))
        matrix.diagonal().sub_(matrix.trace() / dim)
        return field - tangent(self.points, self.points @ matrix)


class History:
    """The last steps s and changes of gradient y, in a ring: what L-BFGS knows of the curvature.

    Numbers are read from the device a few at a time: on a GPU each reading costs more than the product it waits for.
    """

    def __init__(self, points: Tensor, memory: int = MEMORY) -> None:
        self.steps = points.new_zeros(memory, points.numel())
        self.changes = torch.zeros_like(self.steps)
        self.products = [[0.0] * memory for _ in range(memory)]  # s_i · y_j
        self.order: list[int] = []  # slots, oldest first

    def clear(self) -> None:
        for slot in self.order:
            self.steps[slot].zero_()
            self.changes[slot].zero_()
        self.order = []

    def add(self, step: Tensor, change: Tensor) -> None:
        s, y = step.flatten(), change.flatten()
        own = torch.stack([s @ y, s @ s, y @ y])
        found = torch.cat([self.changes @ s, self.steps @ y, own]).tolist()
        curvature, step_square, change_square = found[-3:]
        if curvature <= 1e-10 * math.sqrt(step_square * change_square):
            return  # no positive curvature along this step: it would spoil the model
        memory = len(self.steps)
        slot = self.order.pop(0) if len(self.order) == memory else len(self.order)
        self.steps[slot], self.changes[slot] = s, y
        for other in range(memory):
            self.products[slot][other], self.products[other][slot] = found[other], found[memory + other]
        self.products[slot][slot] = curvature
        self.order.append(slot)

    def solve(self, gradient: Tensor, precondition: Preconditioner) -> Tensor:
        """The two-loop recursion, its inner products taken all at once: H times the gradient."""
        flat, order, products = gradient.flatten(), self.order, self.products
        along = (self.steps @ flat).tolist()
        alpha, beta = [0.0] * len(self.steps), [0.0] * len(self.steps)
        for place in range(len(order) - 1, -1, -1):
            i = order[place]
            later = sum(alpha[j] * products[i][j] for j in order[place + 1 :])
            alpha[i] = (along[i] - later) / products[i][i]
        residual = (flat - _sent(alpha, flat) @ self.changes).view_as(gradient)
        newest = order[-1]
        scaled = precondition.half(self.changes[newest].view_as(gradient))
        gamma = products[newest][newest] / (scaled * scaled).sum()
        direction = precondition.whole(residual).mul_(gamma).flatten()
        along = (self.changes @ direction).tolist()
        for place, i in enumerate(order):
            earlier = sum((alpha[j] - beta[j]) * products[j][i] for j in order[:place])
            beta[i] = (along[i] + earlier) / products[i][i]
        weights = _sent([a - b for a, b in zip(alpha, beta, strict=True)], flat)
        return (direction + weights @ self.steps).view_as(gradient)


def _sent(numbers: list[float], like: Tensor) -> Tensor:
    """Without the wait for the device that ``new_tensor`` is."""
    return torch.tensor(numbers, dtype=like.dtype, device="cpu").to(like.device, non_blocking=True)


def minimise(
    points: Tensor, t: float, effort: Effort, *, passes: int, tolerance: float, precision: str = "highest"
) -> tuple[Tensor, float]:
    """Lower L_uni at sharpness t from unit rows [C, D]; returns the points reached and their value.

    Stops after ``passes``, when the last 20 have gained less than ``tolerance``, when no step lowers the value any
    more, when the effort is over, or on Ctrl-C (noted in the effort). The points returned are the best seen.
    """
    evaluate, history, count = energy(t, precision), History(points), len(points)
    end, values = effort.spent + passes, []
    value = math.inf
    try:
        value, gradient = evaluate(points)
        effort.count(t, value)
        slack = _slack(points.dtype, value, precision)
        while effort.spent < end and not effort.over():
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
                found = _search(evaluate, points, value, direction, size, slope, slack, effort, t, end)
            if found is None:
                if not history.order:
                    break
                history.clear()
                continue
            moved, step, new_value, new_gradient = found
            history.add(tangent(moved, step), new_gradient - tangent(moved, gradient))
            points, value, gradient = moved, new_value, new_gradient
            values.append((effort.spent, value))
            while values[0][0] < effort.spent - PATIENCE:
                before = values.pop(0)[1]
                if before - value < tolerance and values[0][0] >= effort.spent - PATIENCE:
                    return points, value
    except KeyboardInterrupt:
        effort.interrupted = True
    return points, value


def _slack(dtype: torch.dtype, value: float, precision: str) -> float:
    """By how much rounding may seem to raise the value."""
    if dtype == torch.float64:
        return 1e-14 * abs(value)
    return {"highest": 1e-7, "higher": 1e-7, "high": 1e-6, "medium": 1e-5}[precision] * abs(value)


def _search(
    evaluate: Energy,
    points: Tensor,
    value: float,
    direction: Tensor,
    size: float,
    slope: float,
    slack: float,
    effort: Effort,
    t: float,
    end: float,
) -> tuple[Tensor, Tensor, float, Tensor] | None:
    """Backtrack until the decrease is sufficient (Armijo): new points, the step taken, value and gradient there."""
    while size > 1e-8 and effort.spent < end and not effort.over():
        step = direction * size
        moved = torch.nn.functional.normalize(points + step, dim=1)
        new_value, gradient = evaluate(moved)
        accepted = new_value <= value + ARMIJO * size * slope + slack
        effort.count(t, min(new_value, value) if accepted else value)
        if accepted:
            return moved, step, new_value, gradient
        minimum = -slope * size * size / (2 * (new_value - value - slope * size))  # of the parabola through both
        size = min(max(minimum, 0.1 * size), 0.5 * size)
    return None
