"""``assign`` and ``solve``: checks, which method runs and why, and the certificate of whatever it returns."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment, Certificate, certify, directions, judge, score_spread
from fastproto.assignment.column_generation import STILL_OPTIMAL, Found, Search
from fastproto.assignment.dense import improve_prices, match_dense
from fastproto.assignment.inputs import check_factors, check_memory, checked, fetched
from fastproto.assignment.kernel_passes import factor_scores
from fastproto.assignment.passes import MatrixScores, Scores
from fastproto.checks import TINY_NORM, check_finite, check_permutation, shape_of

METHODS = ("auto", "dense", "column_generation")
# From here on column generation took less time than the dense solver with its matrix and the proof, on easy and on
# hard means; below, both take a millisecond, and the dense solver needs no compiled code.
COLUMN_GENERATION_FROM = 128
TIE = 2e-10  # in units of std(s): more than a step of the grid that the dense solver sees
MATRIX_FROM = 3000  # the same where the matrix is given


@dataclass(frozen=True)
class Task:
    """What ``assign`` and ``solve`` have in common: scores to maximise, in one of two forms, and what was asked for."""

    size: int
    device: torch.device
    unseen: Tensor  # [C] bool, on the CPU: rows that take no part
    previous: Assignment | None  # on the CPU
    tolerance: float
    deadline: float | None
    started: float
    progress: bool


def assign(
    class_means: Tensor,
    prototypes: Tensor,
    *,
    previous: Assignment | None = None,
    method: str = "auto",
    tolerance: float = 1e-6,
    time_limit: float | None = None,
    progress: bool = False,
) -> Assignment:
    """The permutation A that maximises Σ_i q̂_i·w_{A(i)}, with a certificate.

    ``q = F.normalize(class_means); scipy.optimize.linear_sum_assignment(q @ prototypes.T, maximize=True)``

    Args:
        class_means: Q [C, D], any norms; a zero row is a class that was never seen: it takes no part in the objective
            and keeps its previous prototype if that is left over, else takes the lowest one that is.
        prototypes: W [C, D], any floating-point dtype; rows of any length up to 1e15.
        previous: an earlier result; if its prices still prove its permutation optimal, it is returned after one pass.
            Otherwise the search starts from them. Of equally good prototypes a class keeps its previous one.
        method: ``dense`` forms the C×C scores and hands them to lapx, or to SciPy where that is not installed;
            ``column_generation`` needs memory O(C·D) and a few passes over the scores, which the CPU stores up to
            32 MiB (4,096 classes in bfloat16, 2,896 in float32) and otherwise makes anew in each pass; ``auto`` is
            column generation from C = 128 on, its passes on Triton kernels where the tensors are on a GPU. The result
            says which ran, where, and why.
        tolerance: how large the gap may be, relative to C · std(s), for the result to count as certified; a gap within
            the rounding floor always does.
        time_limit: seconds, looked at between passes. When the time is over, or at Ctrl-C, column generation returns
            the best permutation so far after one more pass for its honest gap. A dense solver cannot be stopped; once
            the time is over its prices are no longer improved.
        progress: print a line per step on standard error.

    Returns:
        Assignment, its tensors on the device of ``class_means``.

    Raises:
        TypeError, ValueError: shapes that differ, NaN or inf, a ``previous`` of another size, an unknown method, too
            large for the memory of this machine.

    Source: Eq. 8-9 of Saadabadi et al., CVPR 2024; linear programming duality.
    """
    started = time.perf_counter()
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance is {tolerance}; expected a number >= 0, such as 1e-6")
    check_factors(class_means, prototypes)
    decision = choose(method, len(class_means), COLUMN_GENERATION_FROM)
    norms: Tensor = torch.linalg.vector_norm(class_means.detach(), dim=1, dtype=torch.float64)
    lengths, total, previous = fetched(norms, prototypes.detach().sum(), previous)
    if not math.isfinite(total):  # else no number is NaN or inf
        check_finite("prototypes", prototypes)
    if not bool(lengths.isfinite().all()):
        check_finite("class_means", class_means)
        raise ValueError(
            f"class_means row {int(lengths.argmax())} has a length that float64 does not hold; expected squares that "
            "can be added: scale the rows"
        )
    task = Task(
        size=len(class_means),
        device=class_means.device,
        unseen=lengths <= TINY_NORM,
        previous=checked(previous, len(class_means)),
        tolerance=tolerance,
        deadline=None if time_limit is None else started + time_limit,
        started=started,
        progress=progress,
    )
    with torch.autocast(task.device.type, enabled=False):  # the margins of the proof are those of float32
        if decision[0] == "dense":
            return _factors_dense(task, class_means, prototypes, decision[1])
        return _factors_by_columns(task, class_means, norms, prototypes, decision[1])


def solve(
    cost: Tensor | np.ndarray[Any, Any],
    *,
    previous: Assignment | None = None,
    method: str = "auto",
    time_limit: float | None = None,
    progress: bool = False,
) -> Assignment:
    """The permutation that minimises Σ_i cost_{i,A(i)} for any square matrix, with a certificate.

    ``scipy.optimize.linear_sum_assignment(cost)``. Prices mean the same as in :func:`assign` with s = -cost.

    Args:
        cost: [C, C], any real dtype (integers are exact up to 2^53), finite. Where it is a product of factors,
            :func:`assign` does without it.
        previous, method, time_limit, progress: as in :func:`assign`; ``auto`` is column generation from C = 3000 on.

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
    decision = choose(method, len(cost), MATRIX_FROM)
    check_memory(len(cost), "a smaller matrix, or its factors and assign(..., method='column_generation')")
    scores = -cost.detach().double()
    check_finite("cost", scores)
    task = Task(
        size=len(cost),
        device=cost.device,
        unseen=torch.zeros(len(cost), dtype=torch.bool, device="cpu"),
        previous=checked(previous, len(cost)),
        tolerance=1e-6,
        deadline=None if time_limit is None else started + time_limit,
        started=started,
        progress=progress,
    )
    spread = float(scores.std(correction=0))
    if decision[0] == "dense":
        found = _dense(
            task,
            lambda: (scores.cpu().numpy(), scores.new_zeros(len(scores))),
            lambda start, stop: scores[start:stop],
            spread=spread,
            magnitude=float(scores.abs().max()),
            why=decision[1],
        )
    else:
        found = _column_generation(task, MatrixScores(scores.cpu().numpy()), spread, decision[1])
    return replace(found, objective=-found.objective)


def choose(method: str, size: int, column_generation_from: int) -> tuple[str, str]:
    """(method, why)."""
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if method != "auto":
        return method, "asked for"
    if size < column_generation_from:
        return "dense", f"fewer than {column_generation_from} classes"
    return "column_generation", f"{column_generation_from} classes or more"


def _factors_dense(task: Task, class_means: Tensor, prototypes: Tensor, why: str) -> Assignment:
    q, w = directions(class_means), prototypes.detach().double()
    mean_q = q.mean(0)
    # Centring adds constants to rows and columns: the same optimum, with digits left when means collapse.
    return _dense(
        task,
        lambda: (((q - mean_q) @ (w - w.mean(0)).T).cpu().numpy(), w @ mean_q),
        lambda start, stop: q[start:stop] @ w.T,
        spread=score_spread(q, w),
        magnitude=float(torch.linalg.vector_norm(w, dim=1).max()) * q.shape[1],
        why=why,
    )


def _factors_by_columns(task: Task, class_means: Tensor, norms: Tensor, prototypes: Tensor, why: str) -> Assignment:
    seen = slice(None) if not bool(task.unseen.any()) else ~task.unseen.to(task.device)
    scores, where = factor_scores(class_means[seen], norms[seen], prototypes)
    share = len(scores.norms) / task.size  # the zero rows count as scores too
    second = share * (scores.spread**2 + scores.mean**2)
    return _column_generation(task, scores, max(second - (share * scores.mean) ** 2, 0.0) ** 0.5, f"{why}; {where}")


def _dense(task: Task, matrix: Any, rows: Any, *, spread: float, magnitude: float, why: str) -> Assignment:
    """``matrix()`` gives the scores, up to constants of rows, and what to add to its prices; ``rows`` the true ones."""
    bounds = {"spread": spread, "magnitude": magnitude, "tolerance": task.tolerance}
    passes, old = 0, None
    if task.previous is not None:
        old, prices = task.previous.permutation.to(task.device), task.previous.prices.to(task.device)
        known = certify(rows, old, prices, **bounds)
        passes = 1
        if known.certified:
            return _result(task, old, prices, known, "previous", STILL_OPTIMAL, passes)
    check_memory(task.size, "method='column_generation', which never forms it")
    scores, offset = matrix()
    if old is not None:
        scores[np.arange(task.size), old.cpu().numpy()] += TIE * spread  # of equals the previous one is taken
    columns, duals, solver, reason = match_dense(scores)
    permutation = torch.as_tensor(columns, dtype=torch.int64, device=task.device)
    check_permutation(f"the result of {solver}", permutation, task.size)
    raised, sweeps = improve_prices(scores, columns, duals, task.deadline)
    permutation = _place_unseen(permutation, task.unseen.to(task.device), old)
    price_tensor = torch.as_tensor(raised, device=task.device) + offset
    known = certify(rows, permutation, price_tensor, **bounds)
    return _result(task, permutation, price_tensor, known, solver, f"{why}; {reason}", passes + sweeps + 1)


def _column_generation(task: Task, scores: Scores, spread: float, why: str) -> Assignment:
    previous, unseen = task.previous, task.unseen
    old = None if previous is None else previous.permutation
    if scores.spread == 0:  # as far as their moments tell: a look at all scores says whether they differ
        equal, gap = _all_equal(task, scores, old, why)
        if equal is not None:
            return equal
        scores.spread = max(spread, gap / task.size)
        spread = scores.spread
    order = np.argsort(unseen.numpy(), kind="stable")  # of the search: the rows that are matched, then the unseen ones
    search = Search(
        scores,
        None if old is None else old.numpy()[order],
        None if previous is None else previous.prices.numpy(),
        good_enough=task.tolerance * task.size * spread,
        deadline=task.deadline,
        progress=task.progress,
    )
    found: Found = search.run()
    columns = np.empty_like(order)
    columns[order] = found.columns
    permutation = _place_unseen(torch.from_numpy(columns), unseen, old)
    check_permutation("the result of column generation", permutation, task.size)
    least = found.prices.min() if bool(unseen.any()) else 0.0  # the price of what is left over is 0
    prices = torch.from_numpy(found.prices - least)
    known = judge(
        found.objective,
        found.gap,
        size=task.size,
        largest_price=float(prices.abs().max()),
        spread=spread,
        magnitude=scores.magnitude,
        tolerance=task.tolerance,
    )
    method = "previous" if found.unchanged else "column_generation"
    reason = found.reason if found.unchanged else f"{why}; {found.reason}"
    return _result(task, permutation, prices, known, method, reason, found.passes)


def _all_equal(task: Task, scores: Scores, old: Tensor | None, why: str) -> tuple[Assignment | None, float]:
    """The old or the first permutation, where scores differ by constants of rows and columns only; and its gap."""
    permutation = torch.arange(task.size) if old is None else old
    rows = permutation[~task.unseen]
    search = Search(scores, torch.cat((rows, permutation[task.unseen])).numpy(), None)
    gap = search.prove(search.old, search.prices).gap if len(rows) else 0.0
    prices = torch.from_numpy(search.prices)
    bounds = {"spread": 0.0, "magnitude": scores.magnitude, "tolerance": task.tolerance}
    objective = float(search.matched(search.old).sum())
    known = judge(objective, gap, size=task.size, largest_price=float(prices.abs().max()), **bounds)
    reason = f"{why}; all permutations are equally good"
    found = _result(task, permutation, prices, known, "column_generation", reason, search.passes)
    return found if known.certified else None, gap


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


def _result(
    task: Task,
    permutation: Tensor,
    prices: Tensor,
    known: Certificate,
    method: str,
    reason: str,
    passes: float,
) -> Assignment:
    old = None if task.previous is None else task.previous.permutation
    return Assignment(
        permutation=permutation.to(task.device),
        prices=prices.to(task.device),
        objective=known.objective,
        gap=known.gap,
        relative_gap=known.relative_gap,
        rounding_floor=known.rounding_floor,
        certified=known.certified,
        changed=None if old is None else int((permutation.cpu() != old).sum()),
        method=method,
        reason=reason,
        seconds=time.perf_counter() - task.started,
        passes=passes,
    )
