"""Lower bounds that no C unit vectors in D dimensions can beat, in float64.

Both come from one quadrature rule (Levenshtein 1998; Boyvalenkov, Dragnev, Hardin, Saff and Stoyanova 2016): Gauss or
Radau nodes of the signed measure ν = μ - δ₁/C, where μ is the distribution of the cosine between a fixed and a
uniform random direction. Its largest node bounds the max cosine, and C/(C-1) Σ ω f(λ) bounds the mean of f over pairs
for every absolutely monotone f of the cosine, such as exp(-2t(1 - cos)). Simplex, cross-polytope, icosahedron,
600-cell, E8 and the other sharp codes reach both.

In the polynomials orthonormal for μ, with v their values at 1 and J their Jacobi matrix, ν has the Gram matrix
G = I - vvᵀ/C and multiplication by x is H = J - vvᵀ/C: the nodes are the eigenvalues of H u = λ G u, the weights
(uᵀ G e₀)². Nothing is subtracted that is nearly equal, so no extended precision is needed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastproto.support.checks import check_classes, check_sharpness

Array = NDArray[np.float64]


def uniformity_bound(num_classes: int, dim: int, t: float = 2.0) -> float:
    """The universal lower bound for L_uni = log mean_{i≠j} exp(-t‖w_i - w_j‖²).

    Raises:
        ValueError: C < 2, D < 2 or t <= 0.

    Source: Boyvalenkov et al. 2016.
    """
    num_classes, dim = check_classes(num_classes, dim)
    t = check_sharpness(t)
    nodes, weights = quadrature(num_classes, dim)
    exponents = -2 * t * (1 - nodes)
    top = float(exponents.max())
    mean = num_classes / (num_classes - 1) * float(weights @ np.exp(exponents - top))
    return top + math.log(mean)


def max_cosine_bound(num_classes: int, dim: int) -> float:
    """The larger of Rankin's (C <= 2D) and Levenshtein's lower bound for the max cosine of C unit vectors.

    Raises:
        ValueError: C < 2 or D < 2.

    Source: Rankin 1955; Levenshtein 1998.
    """
    num_classes, dim = check_classes(num_classes, dim)
    levenshtein = float(quadrature(num_classes, dim)[0].max())
    return max(levenshtein, 0.0) if dim + 1 < num_classes <= 2 * dim else levenshtein


def quadrature(num_classes: int, dim: int) -> tuple[Array, Array]:
    """Nodes and weights of the rule of highest strength τ whose design bound D(D, τ) lies below C.

    Raises:
        ValueError: C < 2 or D < 2.
    """
    num_classes, dim = check_classes(num_classes, dim)
    if dim == 2:  # the polygon's own cosines: it is optimal, and its strength grows with C
        cosines = np.cos(2 * np.pi * np.arange(1, num_classes) / num_classes)
        return cosines, np.full(num_classes - 1, 1 / num_classes)
    tau = design_strength(num_classes, dim)
    shape = (dim - 3) / 2
    if tau % 2:
        return _gauss(shape, shape, (tau + 1) // 2, 1 / num_classes)
    # One node is -1 (Radau): the others are the Gauss nodes of (1 + x) ν, whose point mass at 1 is 2/C.
    nodes, weights = _gauss(shape, shape + 1, tau // 2, 2 / num_classes)
    weights = weights / (1 + nodes)
    rest = 1 - 1 / num_classes - weights.sum()
    return np.append(nodes, -1.0), np.append(weights, rest)


def design_strength(num_classes: int, dim: int) -> int:
    """The largest τ >= 1 whose design bound D(D, τ) lies below C: a set of C points can be no design much stronger."""
    tau = 1
    while num_classes > _design_bound(dim, tau + 1):
        tau += 1
    return tau


def _design_bound(dim: int, tau: int) -> int:
    """The least size of a spherical τ-design (Delsarte, Goethals and Seidel 1977)."""
    half = tau // 2
    if tau % 2:
        return 2 * math.comb(dim + half - 1, dim - 1)
    return math.comb(dim + half - 1, dim - 1) + math.comb(dim + half - 2, dim - 1)


def _gauss(a: float, b: float, count: int, mass: float) -> tuple[Array, Array]:
    """Gauss rule of (probability weight (1-x)^a (1+x)^b) minus a point mass at 1."""
    j = np.arange(1, count + 1, dtype=np.float64)
    diagonal = np.empty(count)
    diagonal[0] = (b - a) / (a + b + 2)
    step = 2 * j + a + b
    diagonal[1:] = ((b * b - a * a) / (step * (step + 2)))[: count - 1]
    first = 4 * (1 + a) * (1 + b) / ((2 + a + b) ** 2 * (3 + a + b))
    with np.errstate(divide="ignore", invalid="ignore"):  # the general formula is 0/0 at j = 1 where a + b = -1
        off = 4 * j * (j + a) * (j + b) * (j + a + b) / (step**2 * (step + 1) * (step - 1))
    off = np.sqrt(np.concatenate([[first], off[1:]]))
    at_one = np.ones(count)
    for k in range(1, count):
        before = off[k - 2] * at_one[k - 2] if k > 1 else 0.0
        at_one[k] = ((1 - diagonal[k - 1]) * at_one[k - 1] - before) / off[k - 1]
    point = mass * np.outer(at_one, at_one)
    gram = np.eye(count) - point
    times_x = np.diag(diagonal) + np.diag(off[: count - 1], 1) + np.diag(off[: count - 1], -1) - point
    half = np.linalg.cholesky(gram)
    left = np.linalg.solve(half, times_x)
    nodes, vectors = np.linalg.eigh(np.linalg.solve(half, left.T))
    return nodes, (half[0, 0] * vectors[0]) ** 2
