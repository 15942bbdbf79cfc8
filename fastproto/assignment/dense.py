"""Exact dense solvers: lapjv where it has a wheel, lapx elsewhere, SciPy where neither is installed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment, Certificate, ScoreRows, certify, directions, score_spread
from fastproto.checks import check_finite, check_matrix, check_permutation, shape_of

Array = np.ndarray[Any, np.dtype[np.float64]]
METHODS = ("auto", "dense")


def assign(
    class_means: Tensor,
    prototypes: Tensor,
    *,
    previous: Assignment | None = None,
    method: str = "auto",
    tolerance: float = 1e-6,
    time_limit: float | None = None,
) -> Assignment:
    """The permutation A that maximises Σ_i q̂_i·w_{A(i)}, with a certificate.

    ``q = F.normalize(class_means); scipy.optimize.linear_sum_assignment(q @ prototypes.T, maximize=True)``

    Args:
        class_means: Q [C, D], any norms; a zero row is a class that was never seen: it takes no part in the objective
            and keeps its previous prototype if that is left over, else takes the lowest one that is.
        prototypes: W [C, D], float32 or float64.
        previous: an earlier result; if its prices still prove its permutation optimal, it is returned after one pass.
        method: ``auto`` or ``dense`` (today both are the dense solver, after the look at ``previous``).
        tolerance: how large the gap may be, relative to C · std(s), for the result to count as certified; a gap within
            the rounding floor always does.
        time_limit: seconds. A dense solver cannot be stopped; once the time is over, prices are no longer improved, and
            the gap that is returned is the honest, larger one.

    Returns:
        Assignment, its tensors on the device of ``class_means``.

    Raises:
        TypeError, ValueError: shapes that differ, NaN or inf, a ``previous`` of another size, too large for memory.

    Source: Eq. 8-9 of Saadabadi et al., CVPR 2024; linear programming duality.
    """
    started = time.perf_counter()
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance is {tolerance}; expected a number >= 0, such as 1e-6")
    check_matrix("class_means", class_means)
    check_matrix("prototypes", prototypes)
    if class_means.shape != prototypes.shape:
        raise ValueError(
            f"class_means are {shape_of(class_means)} and prototypes {shape_of(prototypes)}; expected the same [C, D]"
        )
    check_finite("class_means", class_means)
    check_finite("prototypes", prototypes)
    q, w = directions(class_means), prototypes.detach().double()
    mean_q, mean_w = q.mean(0), w.mean(0)
    spread = score_spread(q, w)
    magnitude = float(torch.linalg.vector_norm(w, dim=1).max()) * q.shape[1]

    def matrix() -> tuple[Array, Tensor]:
        # Centring adds constants to rows and columns: the same optimum, with digits left when means collapse.
        scores = ((q - mean_q) @ (w - mean_w).T).cpu().numpy()
        return scores, w @ mean_q

    return _solve(
        matrix,
        lambda start, stop: q[start:stop] @ w.T,
        unseen=(q == 0).all(1),
        previous=previous,
        method=method,
        certificate={"spread": spread, "magnitude": magnitude, "tolerance": tolerance},
        deadline=None if time_limit is None else started + time_limit,
        started=started,
    )


def solve(
    cost: Tensor | np.ndarray[Any, Any], *, previous: Assignment | None = None, method: str = "auto"
) -> Assignment:
    """The permutation that minimises Σ_i cost_{i,A(i)} for any square matrix, with a certificate.

    ``scipy.optimize.linear_sum_assignment(cost)``. Prices mean the same as in :func:`assign` with s = -cost.

    Args:
        cost: [C, C], any real dtype (integers are exact up to 2^53), finite.
        previous, method: as in :func:`assign`.

    Raises:
        TypeError, ValueError: not square (pad it with a constant row or column), complex, NaN or inf, too large.
    """
    started = time.perf_counter()
    cost = torch.as_tensor(cost)
    if cost.is_complex() or cost.dtype == torch.bool:
        raise TypeError(f"cost is {cost.dtype}; expected real numbers: convert it with .float()")
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] == 0:
        raise ValueError(
            f"cost has shape {shape_of(cost)}; expected a square [C, C], C >= 1: "
            "pad the shorter side with rows or columns of one constant"
        )
    scores = -cost.detach().double()
    check_finite("cost", scores)
    found = _solve(
        lambda: (scores.cpu().numpy(), scores.new_zeros(len(scores))),
        lambda start, stop: scores[start:stop],
        unseen=torch.zeros(len(scores), dtype=torch.bool, device=scores.device),
        previous=previous,
        method=method,
        certificate={
            "spread": float(scores.std(correction=0)),
            "magnitude": float(scores.abs().max()),
            "tolerance": 1e-6,
        },
        deadline=None,
        started=started,
    )
    return replace(found, objective=-found.objective)


def _solve(
    matrix: Any,
    rows: ScoreRows,
    *,
    unseen: Tensor,
    previous: Assignment | None,
    method: str,
    certificate: dict[str, float],
    deadline: float | None,
    started: float,
) -> Assignment:
    """``matrix()`` gives the scores as an array, up to row constants, and the constants to add to its prices."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    size, device = len(unseen), unseen.device
    passes = 0
    if previous is not None:
        check_permutation("previous.permutation", previous.permutation, size)
        old, prices = previous.permutation.to(device), previous.prices.to(device).double()
        found = certify(rows, old, prices, **certificate)
        passes += 1
        if found.certified:
            return _result(old, prices, found, 0, ("previous", "its prices still prove it optimal"), started, passes)
    _check_memory(size)
    scores, offset = matrix()
    columns, duals, solver, reason = _dense(scores)
    permutation = torch.as_tensor(columns, dtype=torch.int64, device=device)
    check_permutation(f"the result of {solver}", permutation, size)
    raised, sweeps = _improve_prices(scores, columns, duals, deadline)
    old_or_none = None if previous is None else old
    permutation = _place_unseen(permutation, unseen, old_or_none)
    price_tensor = torch.as_tensor(raised, device=device) + offset
    found = certify(rows, permutation, price_tensor, **certificate)
    changed = None if previous is None else int((permutation != old).sum())
    return _result(permutation, price_tensor, found, changed, (solver, reason), started, passes + sweeps + 1)


def _result(
    permutation: Tensor,
    prices: Tensor,
    found: Certificate,
    changed: int | None,
    decision: tuple[str, str],
    started: float,
    passes: int,
) -> Assignment:
    return Assignment(
        permutation=permutation,
        prices=prices,
        objective=found.objective,
        gap=found.gap,
        relative_gap=found.relative_gap,
        rounding_floor=found.rounding_floor,
        certified=found.certified,
        changed=changed,
        method=decision[0],
        reason=decision[1],
        seconds=time.perf_counter() - started,
        passes=passes,
    )


def _dense(scores: Array) -> tuple[Any, Array, str, str]:
    """(column of each row, first prices, solver, reason)."""
    if len(scores) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1), "dense", "one class has one assignment"
    cost = scores.max() - scores  # lapjv expects costs >= 0
    try:
        from lapjv import lapjv
    except ImportError:
        pass
    else:
        row, _, (_, _, dual) = lapjv(cost, force_doubles=True)
        return row, -np.asarray(dual, dtype=np.float64), "lapjv", "the fastest dense solver that is installed"
    try:
        from lap import lapjv as lapx
    except ImportError:
        from scipy.optimize import linear_sum_assignment

        return linear_sum_assignment(cost)[1], np.zeros(len(cost)), "scipy", "neither lapjv nor lapx is installed"
    return lapx(cost)[1], np.zeros(len(cost)), "lapx", "lapjv is not installed"


def _improve_prices(scores: Array, columns: Any, prices: Array, deadline: float | None) -> tuple[Array, int]:
    """Raise prices until no row prefers another column: p_j >= p_{A(i)} + s_ij - s_{i,A(i)} (Bellman-Ford).

    Solvers without duals start from zero; those of lapjv are optimal but for rounding and need one sweep.
    """
    size = len(columns)
    matched = scores[np.arange(size), columns]
    least = 1e-14 * max(float(np.abs(scores).max()), 1e-300)
    prices = prices - prices.min()
    for sweep in range(1, size + 1):
        base = prices[columns] - matched
        raised = prices.copy()
        for start in range(0, size, 512):
            np.maximum(raised, (scores[start : start + 512] + base[start : start + 512, None]).max(0), out=raised)
        settled = bool((raised - prices).max() <= least)
        prices = raised
        if settled or (deadline is not None and time.perf_counter() > deadline):
            return prices, sweep
    return prices, size


def _place_unseen(permutation: Tensor, unseen: Tensor, old: Tensor | None) -> Tensor:
    """Unseen classes share the left-over prototypes: each keeps its old one where that is free, the rest in order."""
    if not bool(unseen.any()):
        return permutation
    free = torch.zeros_like(unseen)
    free[permutation[unseen]] = True
    placed = ~unseen
    permutation = permutation.clone()
    if old is not None:
        keeps = unseen & free[old]
        permutation[keeps] = old[keeps]
        free[old[keeps]] = False
        placed |= keeps
    permutation[~placed] = free.nonzero().squeeze(1)
    return permutation


def _check_memory(size: int) -> None:
    need = 3 * 8 * size * size  # the scores, the solver's costs, one temporary
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        raise ValueError(
            f"{size} classes need {need / 2**30:.0f} GiB for the dense solver and this machine has {have / 2**30:.0f}; "
            "use fewer classes or a machine with more memory"
        )
