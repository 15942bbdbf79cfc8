"""The public functions ``assign`` and ``solve``: validate the inputs, choose a solver and report its result."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import TOLERANCE, Assignment, Certificate, Yardstick
from fastproto.assignment.cost_certificate import certify_costs
from fastproto.assignment.inputs import (
    Method,
    check_factors,
    check_lengths,
    check_memory,
    check_options,
    check_previous,
    choose,
    choose_for_costs,
    copy_to_host,
    read_cost,
)
from fastproto.assignment.match_matrix import MatrixProblem, match_matrix
from fastproto.assignment.match_means import match_means
from fastproto.assignment.matching import Matching, Previous
from fastproto.assignment.means_problem import Lengths, MeansProblem
from fastproto.support.checks import TINY_NORM

# Sizes from which column generation is faster than the dense solver with its certificate.
MEANS_FROM = 128
MATRIX_FROM = 1000


def assign(
    class_means: Tensor,
    prototypes: Tensor,
    *,
    previous: Assignment | None = None,
    method: Method = "auto",
    tolerance: float = TOLERANCE,
    time_limit: float | None = None,
    progress: bool = False,
) -> Assignment:
    """The permutation A that maximises Σ_i q̂_i·w_{A(i)}, with a certificate.

    ``q = F.normalize(class_means); scipy.optimize.linear_sum_assignment(q @ prototypes.T, maximize=True)``

    Args:
        class_means: Q [C, D] of any floating-point dtype, rows of any norm. A row of norm at most 1e-12 is an unseen
            class: the objective leaves it out, and it keeps its previous prototype if no seen class takes that one.
            The other unseen classes take the remaining prototypes in order.
        prototypes: W [C, D] of any floating-point dtype, rows of norm at most 1e15.
        previous: an earlier result, for a warm start. If its prices still prove its permutation optimal, it is returned
            after one pass over the scores. Among equally good prototypes a class keeps its previous one.
        method: ``dense`` forms the C×C scores and finds shortest augmenting paths in them; ``lapjv`` (the extra of that
            name) rounds them to a grid on which that package always ends, and continues with column generation where
            the gap is then above the tolerance; ``column_generation`` needs O(C·D) memory and a few passes over the
            scores; the CPU recomputes the scores in each pass unless they fit 32 MiB.
            ``auto`` is column generation from C = 128 on, with Triton kernels where the tensors are on a GPU.
            ``reason`` of the result says what ran, where, and why. Up to C = 16,384, the matrix is formed after all
            where column generation does not prove its result, or where a prototype is more than 100 times longer than
            the median.
        tolerance: the largest gap of a certified result, relative to C · scale and to max(1, |objective|). A gap within
            a small rounding floor is always certified. ``scale`` is the std of the centred scores times the median
            length of the prototypes over their root mean square, so that a few long prototypes do not raise it.
        time_limit: seconds, checked between passes. At the time limit or at Ctrl-C, column generation returns the best
            permutation so far, after one more pass for its gap. The other methods have no result before their end.
        progress: print a line per step to standard error.

    Returns:
        The permutation [C] int64 and the prices [C] float64, on the device of ``class_means``, with their certificate.

    Raises:
        TypeError, ValueError: tensors that are not floating-point, differ in shape or hold NaN or inf; a ``previous``
            of another size; an unknown method; a tolerance or time limit that is negative or not finite; a matrix that
            does not fit the memory of this machine.
        ImportError: ``lapjv`` is asked for and not installed.

    Source: Eq. 8-9 of Saadabadi et al., CVPR 2024; linear programming duality.
    """
    started = time.perf_counter()
    check_options(previous, tolerance, time_limit)
    check_factors(class_means, prototypes)
    size = len(class_means)
    solver, why = choose(method, size, MEANS_FROM, "classes")
    norms, widths = (
        torch.linalg.vector_norm(x.detach(), dim=1, dtype=torch.float64) for x in (class_means, prototypes)
    )
    lengths, widths, previous = copy_to_host(norms, widths, previous)
    check_lengths(class_means, prototypes, lengths, widths)
    previous = check_previous(previous, size, size)
    problem = MeansProblem(
        class_means=class_means,
        norms=norms,
        prototypes=prototypes,
        lengths=Lengths.of(widths),
        unseen=(lengths <= TINY_NORM).numpy(),
        previous=_arrays(previous),
        tolerance=tolerance,
        deadline=None if time_limit is None else started + time_limit,
        progress=progress,
    )
    with torch.autocast(class_means.device.type, enabled=False):  # the error bounds hold for float32 products
        found = match_means(problem, solver, why)
    return _report(found, previous, class_means.device, started)


def solve(
    cost: Tensor | ArrayLike,
    *,
    previous: Assignment | None = None,
    method: Method = "auto",
    tolerance: float = TOLERANCE,
    time_limit: float | None = None,
    progress: bool = False,
) -> Assignment:
    """The permutation that minimises Σ_i cost_{i,A(i)} for any matrix, with a certificate.

    ``scipy.optimize.linear_sum_assignment(cost)``. Prices and gap are those of :func:`assign` with scores s = -cost.
    The cost exceeds SciPy's (float64) by at most 1e-6 · max(1, |cost|), unless a time limit or Ctrl-C ends the search
    or ``tolerance`` is larger.

    Args:
        cost: [n, m], a tensor, an array or lists of real numbers or bool, of magnitude at most 1e300 (integers are
            exact up to 2^53). inf forbids a pair; a large finite cost discourages it. If n > m, n - m rows stay
            unmatched: their entry of the permutation is -1. ``cost`` is not modified. If it is a product of factors,
            :func:`assign` needs no matrix.
        tolerance: the largest gap of a certified result, relative to min(n, m) · scale and to max(1, |objective|).
            ``scale`` is the standard deviation of the reduced costs: the minimum of each row and, for a square matrix,
            of each column is subtracted, and the rest is clipped at a multiple of the typical distance between the
            best and the next cost of a row, so that forbidden pairs do not count.
        previous, method, time_limit, progress: as in :func:`assign`, except that ``auto`` is column generation from
            1000 rows and columns on (without a time limit: unless many costs of a row are equal, or one side is over
            1.1 times the other), and that ``lapjv`` continues on finer grids. Where a method does not prove its result
            optimal, the dense solver takes the matrix as it is, without clipping.

    Returns:
        The permutation [n] int64 and the prices [m] float64, on the device of ``cost`` (the CPU for arrays and lists),
        with their certificate; ``objective`` is the cost.

    Raises:
        TypeError, ValueError: not a matrix of real numbers; NaN or -inf; no permutation avoids the forbidden pairs; a
            ``previous`` of another shape; costs above 1e30 for ``column_generation``; a matrix that does not fit the
            memory of this machine; options as in :func:`assign`.
        ImportError: as in :func:`assign`.

    Source: linear programming duality; column generation on reduced costs.
    """
    started = time.perf_counter()
    check_options(previous, tolerance, time_limit)
    given, device = read_cost(cost)
    rows, columns = given.shape
    solver, why = choose(method, min(rows, columns), MATRIX_FROM, "rows", "columns")
    check_memory(rows, columns, "a smaller matrix, or its factors and assign(..., method='column_generation')")
    previous = check_previous(previous, rows, columns)
    if not given.size:
        found = _nothing_to_match(rows, columns)
    else:
        solver, why = choose_for_costs(given, solver, why, asked=method)

        def prove(permutation: Ints, prices: Floats, scale: float) -> Certificate:
            return certify_costs(given, permutation, prices, Yardstick(min(rows, columns), scale, tolerance))

        deadline = None if time_limit is None else started + time_limit
        free = method == "auto" and time_limit is None  # only column generation keeps a limit
        problem = MatrixProblem(
            given, prove, solver, why, free, _arrays(previous), deadline=deadline, progress=progress
        )
        found = match_matrix(problem)
    found = replace(found, known=replace(found.known, objective=-found.known.objective))
    return _report(found, previous, device, started)


def _nothing_to_match(rows: int, columns: int) -> Matching:
    """The matching of an empty matrix: no row is matched."""
    known = Certificate(objective=0.0, gap=0.0, relative_gap=0.0, rounding_floor=0.0, certified=True)
    return Matching(np.full(rows, -1), np.zeros(columns), known, "dense", "the matrix is empty", 0)


def _arrays(previous: Assignment | None) -> Previous | None:
    return None if previous is None else Previous(previous.permutation.numpy(), previous.prices.numpy())


def _report(found: Matching, previous: Assignment | None, device: torch.device, started: float) -> Assignment:
    """The public result, its tensors on ``device``. ``previous`` is on the CPU."""
    permutation, prices = torch.from_numpy(found.permutation), torch.from_numpy(found.prices)
    return Assignment(
        permutation=permutation.to(device),
        prices=prices.to(device),
        objective=found.known.objective,
        gap=found.known.gap,
        relative_gap=found.known.relative_gap,
        rounding_floor=found.known.rounding_floor,
        certified=found.known.certified,
        changed=None if previous is None else int((permutation != previous.permutation).sum()),
        method=found.method,
        reason=found.reason,
        seconds=time.perf_counter() - started,
        passes=found.passes,
        interrupted=found.ending == "interrupted",
    )
