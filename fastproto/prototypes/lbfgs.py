"""L-BFGS with a preconditioner for the Gaussian potential.

Near an even spread the scaled Hessian has three well separated parts. With k = 2t and the first as unit, the curvatures
are 1 (all points move along one direction), ~2k/D (a symmetric matrix shears them) and ~3k²/D² (the rest). The first
two have D and D²/2 dimensions and can be projected out in O(C·D²), so L-BFGS only has to learn the curvature of the
rest. The preconditioner is MᵀM with M a product of symmetric factors: positive definite for any points.

L-BFGS pairs are not transported between tangent spaces, which saved no passes: the direction is projected once at the
end, and PHPᵀ is positive definite like H.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.ops.sphere_step import tangent

MEMORY = 10  # pairs that L-BFGS keeps: more saved no passes


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
    """The last steps s and changes of the gradient y, in a ring.

    Inner products are copied to the host together: on a GPU a copy costs more than the product it waits for.
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
            return  # no positive curvature along this step: the model would not be positive definite
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
        residual = (flat - _to_device(alpha, flat) @ self.changes).view_as(gradient)
        newest = order[-1]
        scaled = precondition.half(self.changes[newest].view_as(gradient))
        gamma = products[newest][newest] / (scaled * scaled).sum()
        direction = precondition.whole(residual).mul_(gamma).flatten()
        along = (self.changes @ direction).tolist()
        for place, i in enumerate(order):
            earlier = sum((alpha[j] - beta[j]) * products[j][i] for j in order[:place])
            beta[i] = (along[i] + earlier) / products[i][i]
        weights = _to_device([a - b for a, b in zip(alpha, beta, strict=True)], flat)
        return (direction + weights @ self.steps).view_as(gradient)


def _to_device(numbers: list[float], like: Tensor) -> Tensor:
    """A tensor on the device of ``like``, without the synchronisation of ``new_tensor``."""
    return torch.tensor(numbers, dtype=like.dtype, device="cpu").to(like.device, non_blocking=True)
