"""The public functions ``assign`` and ``solve``: they check what they are given, choose a method and report."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import TOLERANCE, Assignment, Certificate, Yardstick, certify
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

# From so many classes or rows on column generation took less time than the dense solver and its proof. Below the first,
# both take a millisecond, and the dense solver needs no compiled code.
MEANS_FROM = 128
MATRIX_FROM = 3000


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
        class_means: Q [C, D], any norms; a row no longer than 1e-12 is a class that was never seen: it takes no part in
            the objective and keeps its previous prototype if that is left over, else takes the lowest one that is.
        prototypes: W [C, D], any floating-point dtype; rows of any length up to 1e15.
        previous: an earlier result; if its prices still prove its permutation optimal, it is returned after one pass.
            Otherwise the search starts from them. Of equally good prototypes a class keeps its previous one.
        method: ``dense`` forms the C×C scores and hands them to lapx, or to SciPy where that is not installed;
            ``column_generation`` needs memory O(C·D) and a few passes over the scores, which the CPU stores up to
            32 MiB (4,096 classes in bfloat16, 2,896 in float32) and otherwise makes anew in each pass; ``auto`` is
            column generation from C = 128 on, with Triton kernels where the tensors are on a GPU. The result says which
            ran, where, and why. Up to C = 16,384 the matrix is formed as well where some prototypes are 100 times
            longer than most, and where column generation does not prove its result.
        tolerance: how large the gap may be, relative to C · scale and to max(1, |objective|), for the result to count
            as certified; a gap within a small rounding floor always does. ``scale`` is the std of the centred scores,
            times the median length of the prototypes over their root mean square: a few long ones do not raise it.
        time_limit: seconds, checked between passes. When the time is over, or at Ctrl-C, column generation returns the
            best permutation so far after one more pass for its gap. A dense solver cannot be stopped; once the time is
            over its prices are no longer improved.
        progress: print a line per step on standard error.

    Returns:
        Assignment, its tensors on the device of ``class_means``.

    Raises:
        TypeError, ValueError: not floating-point, shapes that differ, NaN or inf, a ``previous`` of another size, an
            unknown method, a tolerance or time limit that is negative or not finite, too large for the memory of this
            machine.

    Source: Eq. 8-9 of Saadabadi et al., CVPR 2024; linear programming duality.
    """
    started = time.perf_counter()
    check_options(previous, tolerance, time_limit)
    check_factors(class_means, prototypes)
    size = len(class_means)
    solver, why = choose(method, size, MEANS_FROM)
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
    with torch.autocast(class_means.device.type, enabled=False):  # the margins of the proof are those of float32
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

    ``scipy.optimize.linear_sum_assignment(cost)``. Prices mean the same as in :func:`assign` with s = -cost. The cost
    is never above SciPy's in float64 by more than 1e-6 · max(1, |cost|), unless a time limit or Ctrl-C ends the search
    or ``tolerance`` is larger.

    Args:
        cost: [n, m], a tensor, an array or lists of real numbers or bool (integers are exact up to 2^53), at most
            1e300 either way. inf forbids a pair; large finite costs do as well. Where n > m, n - m rows are left out:
            their place in the permutation [n] is -1. Never modified. Where it is a product of factors,
            :func:`assign` does without it.
        tolerance: how large the gap may be, relative to min(n, m) · scale and to max(1, |objective|), for the result
            to count as certified. ``scale`` is the standard deviation of the costs that compete: each row and each
            column (of a square) reduced by its smallest cost, and cut to a multiple of the distance between a row's
            best and next cost, so that forbidden pairs have no say.
        previous, method, time_limit, progress: as in :func:`assign`; ``auto`` is column generation from 3000 rows and
            columns on. Where a method does not prove its result optimal, SciPy solves the matrix anew.

    Raises:
        TypeError, ValueError: not a matrix of real numbers, NaN or -inf, no permutation that avoids the forbidden
            pairs, ``previous`` of another shape, above 1e30 for ``column_generation``, too large for the memory.
    """
    started = time.perf_counter()
    check_options(previous, tolerance, time_limit)
    given, device = read_cost(cost)
    rows, columns = given.shape
    solver, why = choose(method, min(rows, columns), MATRIX_FROM)
    check_memory(rows, columns, "a smaller matrix, or its factors and assign(..., method='column_generation')")
    previous = check_previous(previous, rows, columns)
    if not given.size:
        found = _nothing_to_match(rows, columns)
    else:
        solver, why = choose_for_costs(given, solver, why, asked=method)
        scores = torch.from_numpy(given)

        def prove(permutation: Ints, prices: Floats, scale: float) -> Certificate:
            a, p = torch.from_numpy(permutation), torch.from_numpy(prices)
            yardstick = Yardstick(min(rows, columns), scale, tolerance)
            return certify(lambda start, stop: -scores[start:stop], a, p, yardstick)

        deadline = None if time_limit is None else started + time_limit
        problem = MatrixProblem(given, prove, solver, why, _arrays(previous), deadline=deadline, progress=progress)
        found = match_matrix(problem)
    found = replace(found, known=replace(found.known, objective=-found.known.objective))
    return _report(found, previous, device, started)


def _nothing_to_match(rows: int, columns: int) -> Matching:
    """Of a matrix without entries: all rows are left out, if there are any."""
    known = Certificate(objective=0.0, gap=0.0, relative_gap=0.0, rounding_floor=0.0, certified=True)
    return Matching(np.full(rows, -1), np.zeros(columns), known, "dense", "nothing to match", 0)


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
