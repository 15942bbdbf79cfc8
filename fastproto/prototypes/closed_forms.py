"""Configurations in closed form, which need no passes; most are proved optimal.

- D = 2: the regular polygon. C <= D+1: the simplex. C = 2D: the cross-polytope. Optimal for every t.
- Sharp codes (icosahedron, 600-cell, E8 and its sections): optimal for every t (Cohn and Kumar 2007).
- D+1 < C < 2D: C-D simplices in orthogonal subspaces have max cosine 0, which is optimal (Rankin 1955). Pairs and one
  large simplex have the lowest L_uni of these at t >= 2, simplices of nearly equal size at t <= 1. The tilted form,
  found by optimisation and then written down, is often lower still, with a max cosine just above 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastproto.support.checks import check_classes, check_sharpness, default_cpu

Array = NDArray[np.float64]
Objective: TypeAlias = Literal["uniform", "max_cosine"]  # L_uni, or the cosine of the closest pair


def closed_form(
    num_classes: int, dim: int, objective: Objective = "uniform", t: float = 2.0
) -> tuple[Tensor, str] | None:
    """Unit rows [C, D] in float64 and the name of the construction, or None where there is none.

    Args:
        num_classes, dim: C >= 2 and D >= 2.
        objective: ``uniform`` (L_uni at ``t``) or ``max_cosine``; they differ where D+1 < C < 2D.
        t: sharpness, > 0.

    Raises:
        TypeError, ValueError: C < 2, D < 2, t <= 0, an unknown objective.

    Source: Cohn and Kumar 2007; Rankin 1955.
    """
    num_classes, dim = check_classes(num_classes, dim)
    t = check_sharpness(t)
    if objective not in ("uniform", "max_cosine"):
        raise ValueError(f"objective is {objective!r}; expected 'uniform' or 'max_cosine'")
    with default_cpu():
        return _known(num_classes, dim, objective, t)


def _known(num_classes: int, dim: int, objective: Objective, t: float) -> tuple[Tensor, str] | None:
    if dim == 2:
        return polygon(num_classes), "polygon"
    if num_classes <= dim + 1:
        return orthogonal_simplices([num_classes], dim), "simplex"
    if num_classes == 2 * dim:
        return orthogonal_simplices([2] * dim, dim), "cross_polytope"
    if (num_classes, dim) in SHARP_CODES:
        name, make = SHARP_CODES[num_classes, dim]
        return make(), name
    if num_classes < 2 * dim:
        return _between(num_classes, dim, objective, t)
    return None


def _between(num_classes: int, dim: int, objective: Objective, t: float) -> tuple[Tensor, str]:
    """D+1 < C < 2D: the lowest L_uni of three constructions; for the max cosine the one that is exactly optimal."""
    parts = num_classes - dim
    pairs = [2] * (parts - 1) + [num_classes - 2 * (parts - 1)]
    if objective == "max_cosine":
        return orthogonal_simplices(pairs, dim), "pairs_and_simplex"
    small, larger = divmod(num_classes, parts)
    balanced = [small + 1] * larger + [small] * (parts - larger)
    value, h, b = fit_tilted(num_classes, dim, t)
    forms = [
        (_simplices_value(pairs, t), "pairs_and_simplex"),
        (value, "tilted"),
    ]
    if sorted(balanced) != sorted(pairs):
        forms.append((_simplices_value(balanced, t), "orthogonal_simplices"))
    name = min(forms, key=lambda form: form[0])[1]  # the first of equals
    if name == "tilted":
        return tilted(num_classes, dim, h, b), name
    return orthogonal_simplices(pairs if name == "pairs_and_simplex" else balanced, dim), name


def polygon(num_classes: int) -> Tensor:
    angle = torch.arange(num_classes, dtype=torch.float64) * (2 * math.pi / num_classes)
    return torch.stack([angle.cos(), angle.sin()], 1)


def simplex(count: int) -> Tensor:
    """[count, count - 1]: all cosines -1/(count-1). Lower triangular, as the Cholesky factor of its Gram matrix."""
    j = torch.arange(count - 1, dtype=torch.float64)
    height = (count * (count - 1 - j) / ((count - 1) * (count - j))).sqrt()
    points = torch.tril(torch.ones(count, count - 1, dtype=torch.float64), -1) * (-height / (count - 1 - j))
    points.diagonal().copy_(height)
    return points


def orthogonal_simplices(sizes: list[int], dim: int) -> Tensor:
    """One simplex for each size, in orthogonal subspaces of Σ (size - 1) dimensions: cosines between them are 0."""
    points = torch.zeros(sum(sizes), dim, dtype=torch.float64)
    row = column = 0
    made = {size: simplex(size) for size in set(sizes)}
    for size in sizes:
        points[row : row + size, column : column + size - 1] = made[size]
        row, column = row + size, column + size - 1
    return points


def _log_mean(cosines: list[ArrayLike], counts: list[float], t: float) -> Array:
    """L_uni from the distinct cosines and how many pairs have each."""
    exponents = np.stack(np.broadcast_arrays(*(2 * t * (np.asarray(c, dtype=np.float64) - 1) for c in cosines)))
    top = exponents.max(0)
    weights = np.array(counts).reshape(-1, *[1] * (exponents.ndim - 1))
    value: Array = top + np.log((weights * np.exp(exponents - top)).sum(0) / sum(counts))
    return value


def _simplices_value(sizes: list[int], t: float) -> float:
    count = sum(sizes)
    inside = {size: sizes.count(size) * size * (size - 1) / 2 for size in set(sizes) if size > 1}
    across = count * (count - 1) / 2 - sum(inside.values())
    return float(_log_mean([*(-1 / (size - 1) for size in inside), 0.0], [*inside.values(), across], t))


def fit_tilted(num_classes: int, dim: int, t: float) -> tuple[float, float, float]:
    """The least L_uni of the tilted form and its scalars h, b, by a grid (log h, b) refined around its lowest point."""
    pairs, singles = num_classes - dim, 2 * dim - num_classes
    counts = [pairs, 2.0 * pairs * (pairs - 1), 2.0 * pairs * singles, singles * (singles - 1) / 2]
    low, high = np.array([math.log(1e-5), 0.0 if singles > 1 else 1.0]), np.array([math.log(0.5) / 2, 1.0])
    ceiling, floor = high, low
    for _ in range(25):
        h, b = np.exp(np.linspace(low[0], high[0], 33))[:, None], np.linspace(low[1], high[1], 33)[None, :]
        last = b * b - (1 - b * b) / max(singles - 1, 1)
        value = _log_mean([2 * h * h - 1, h * h, -h * b, last], counts, t)
        at = np.unravel_index(int(value.argmin()), value.shape)
        best, centre = float(value[at]), np.array([math.log(h[at[0], 0]), b[0, at[1]]])
        reach = (high - low) / 8
        low, high = np.maximum(centre - reach, floor), np.minimum(centre + reach, ceiling)
    return best, math.exp(centre[0]), float(centre[1])


def tilted(num_classes: int, dim: int, h: float, b: float) -> Tensor:
    """C-D pairs ±√(1-h²) v_i - h u and 2D-C singles b u + √(1-b²) σ_i: v_i, u orthonormal, σ a simplex ⟂ to them."""
    pairs, singles = num_classes - dim, 2 * dim - num_classes
    points = torch.zeros(num_classes, dim, dtype=torch.float64)
    axis = torch.arange(pairs)
    points[2 * axis, axis] = math.sqrt(1 - h * h)
    points[2 * axis + 1, axis] = -math.sqrt(1 - h * h)
    points[: 2 * pairs, -1] = -h
    points[2 * pairs :, -1] = b
    if singles > 1:
        points[2 * pairs :, pairs:-1] = math.sqrt(max(1 - b * b, 0.0)) * simplex(singles)
    return points


# --- sharp codes -----------------------------------------------------------------------------------------------------


def icosahedron() -> Tensor:
    golden = (1 + math.sqrt(5)) / 2
    rows = [[0.0, a, b * golden] for a in (1.0, -1.0) for b in (1.0, -1.0)]
    rows = [row[-shift:] + row[:-shift] for shift in range(3) for row in rows]
    return torch.tensor(rows, dtype=torch.float64) / math.sqrt(1 + golden**2)


def cell_600() -> Tensor:
    """The 600-cell's 120 vertices: 8 + 16 + the 96 even permutations of (±φ, ±1, ±1/φ, 0)/2."""
    golden = (1 + math.sqrt(5)) / 2
    rows = [[sign * float(i == k) for i in range(4)] for k in range(4) for sign in (1.0, -1.0)]
    rows += [[s / 2 for s in signs] for signs in itertools.product((1.0, -1.0), repeat=4)]
    even = [p for p in itertools.permutations(range(4)) if sum(a > b for a, b in itertools.combinations(p, 2)) % 2 == 0]
    for a, b, c in itertools.product((0.5, -0.5), repeat=3):
        values = (a * golden, b, c / golden, 0.0)
        rows += [[values[i] for i in p] for p in even]
    return torch.tensor(rows, dtype=torch.float64)


def e8() -> Tensor:
    """The 240 shortest vectors of the E8 lattice: 112 of shape (±1, ±1, 0⁶)/√2 and 128 of shape (±½)⁸/√2."""
    rows = []
    for i, j in itertools.combinations(range(8), 2):
        for a, b in itertools.product((1.0, -1.0), repeat=2):
            rows.append([a if k == i else b if k == j else 0.0 for k in range(8)])
    rows += [[s / 2 for s in signs] for signs in itertools.product((1.0, -1.0), repeat=8) if math.prod(signs) > 0]
    return torch.tensor(rows, dtype=torch.float64) / math.sqrt(2)


def section(points: Tensor) -> Tensor:
    """The nearest neighbours of the first point, projected on its complement: for E8 again a sharp code, in D - 1."""
    cosines = points[1:] @ points[0]
    near = points[1:][cosines > cosines.max() - 1e-9]
    normal = points[0].clone()
    normal[0] += math.copysign(1.0, float(normal[0]))  # the reflection that takes the first point to the first axis
    near = near - torch.outer(near @ normal, normal) * (2 / (normal @ normal))
    return torch.nn.functional.normalize(near[:, 1:], dim=1)


SHARP_CODES: dict[tuple[int, int], tuple[str, Callable[[], Tensor]]] = {
    (12, 3): ("icosahedron", icosahedron),
    (16, 5): ("e8_section", lambda: section(section(section(e8())))),
    (27, 6): ("e8_section", lambda: section(section(e8()))),
    (56, 7): ("e8_section", lambda: section(e8())),
    (120, 4): ("600_cell", cell_600),
    (240, 8): ("e8", e8),
}
