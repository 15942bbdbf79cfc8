"""``assign``: which method runs and why, and the certificate of whatever it returns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.certificate import Assignment, Certificate, Yardstick, certify, directions, score_spread
from fastproto.assignment.column_generation import STILL_OPTIMAL, Search
from fastproto.assignment.inputs import (
    check_factors,
    check_lengths,
    check_memory,
    check_options,
    checked,
    choose,
    fetched,
    fits,
)
from fastproto.assignment.match_matrix import Old, Problem, match
from fastproto.assignment.scores_cpu import Scores
from fastproto.assignment.scores_gpu import factor_scores
from fastproto.support.checks import TINY_NORM, check_permutation

Array = np.ndarray[Any, Any]
# From here on column generation took less time than the dense solver with its matrix and the proof, on easy and on
# hard means; below, both take a millisecond, and the dense solver needs no compiled code.
COLUMN_GENERATION_FROM = 128
OUTLIER = 100  # times the typical length: prototypes so long leave the sweeps no digits for the others
USABLE = 64  # times the largest score: previous prices beyond it belong to other scores
DENSE_MOST = 1 << 14  # classes: up to here a matrix is formed where the sweeps do not lead to a proof


@dataclass(frozen=True)
class Lengths:
    """Of the prototypes: what a few long ones must not decide."""

    each: Tensor  # [C] float64, on the CPU
    typical: float  # the median of those that are not zero
    outliers: bool  # whether some are far longer
    share: float  # of a standard deviation of scores that is not due to a few long ones

    @classmethod
    def of(cls, each: Tensor) -> Lengths:
        lengths = each.numpy()
        low, largest = float(lengths.min()), float(lengths.max())
        rms = float(lengths @ lengths / len(lengths)) ** 0.5
        if largest <= 2 * low or largest == 0:
            return cls(each, rms, False, 1.0)
        typical = float(np.median(lengths[lengths > 0]))
        return cls(each, typical, largest > OUTLIER * typical, min(1.0, typical / rms))


@dataclass(frozen=True)
class Task:
    size: int
    device: torch.device
    unseen: Tensor  # [C] bool, on the CPU: rows that take no part
    complete: bool  # there are none
    lengths: Lengths
    previous: Assignment | None  # on the CPU
    tolerance: float
    deadline: float | None
    started: float
    progress: bool

    def yardstick(self, spread: float) -> Yardstick:
        return Yardstick(self.size, self.lengths.share * spread, self.tolerance)

    def late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline


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
        class_means: Q [C, D], any norms; a row no longer than 1e-12 is a class that was never seen: it takes no part in
            the objective and keeps its previous prototype if that is left over, else takes the lowest one that is.
        prototypes: W [C, D], any floating-point dtype; rows of any length up to 1e15.
        previous: an earlier result; if its prices still prove its permutation optimal, it is returned after one pass.
            Otherwise the search starts from them. Of equally good prototypes a class keeps its previous one.
        method: ``dense`` forms the C×C scores and hands them to lapx, or to SciPy where that is not installed;
            ``column_generation`` needs memory O(C·D) and a few passes over the scores, which the CPU stores up to
            32 MiB (4,096 classes in bfloat16, 2,896 in float32) and otherwise makes anew in each pass; ``auto`` is
            column generation from C = 128 on, its passes on Triton kernels where the tensors are on a GPU. The result
            says which ran, where, and why. Up to C = 16,384 the matrix is formed as well where some prototypes are 100
            times longer than most, and where column generation does not prove its result.
        tolerance: how large the gap may be, relative to C · scale and to max(1, |objective|), for the result to count
            as certified; a gap within a small rounding floor always does. ``scale`` is the std of the centred scores,
            times the median length of the prototypes over their root mean square: a few long ones do not raise it.
        time_limit: seconds, looked at between passes. When the time is over, or at Ctrl-C, column generation returns
            the best permutation so far after one more pass for its honest gap. A dense solver cannot be stopped; once
            the time is over its prices are no longer improved.
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
    method, why = choose(method, len(class_means), COLUMN_GENERATION_FROM)
    norms, widths = (
        torch.linalg.vector_norm(x.detach(), dim=1, dtype=torch.float64) for x in (class_means, prototypes)
    )
    lengths, sizes, previous = fetched(norms, widths, previous)
    check_lengths(class_means, prototypes, lengths, sizes)
    unseen = lengths <= TINY_NORM
    task = Task(
        size=len(class_means),
        device=class_means.device,
        unseen=unseen,
        complete=not bool(unseen.any()),
        lengths=Lengths.of(sizes),
        previous=checked(previous, len(class_means), len(class_means)),
        tolerance=tolerance,
        deadline=None if time_limit is None else started + time_limit,
        started=started,
        progress=progress,
    )
    with torch.autocast(task.device.type, enabled=False):  # the margins of the proof are those of float32
        possible = task.size <= DENSE_MOST and fits(task.size, task.size)
        if method == "dense" or (possible and task.lengths.outliers):
            return _by_matrix(task, class_means, prototypes, method, why)
        found, stopped = _by_columns(task, class_means, norms, prototypes, why)
        if found.certified or stopped or not possible:
            return found
        why = f"{found.reason}; column generation did not prove its result optimal"
        again = _by_matrix(task, class_means, prototypes, "dense", why)
        return again if again.certified or again.gap <= found.gap else found


def _by_matrix(task: Task, class_means: Tensor, prototypes: Tensor, method: str, why: str) -> Assignment:
    """Scores in float64, all of them. Centred: the same optimum, with digits left when means collapse."""
    q, w = directions(class_means), prototypes.detach().double()
    sizes, yardstick = task.lengths.each.to(task.device), task.yardstick(score_spread(q, w))
    old, unseen = task.previous, task.unseen.numpy()

    def proved(permutation: Tensor, prices: Tensor) -> Certificate:
        there = permutation.to(task.device), prices.to(task.device)
        return certify(lambda start, stop: q[start:stop] @ w.T, *there, yardstick, sizes)

    if old is not None:
        prices = old.prices if task.complete else old.prices - old.prices.min()
        known = proved(old.permutation, prices)
        if known.certified:
            return _result(task, old.permutation, prices, known, "previous", STILL_OPTIMAL, 1)
    check_memory(task.size, task.size, "method='column_generation', which never forms it")
    seen = np.flatnonzero(~unseen)
    if not len(seen):
        order = torch.arange(task.size, device="cpu") if old is None else old.permutation
        prices = torch.zeros_like(task.lengths.each)
        return _result(task, order, prices, proved(order, prices), "dense", f"{why}; no class was seen", 1)
    middle = q.mean(0) if task.complete else torch.zeros_like(q[0])  # unseen rows take a column as it is
    offset = (w @ middle).cpu().numpy()
    rows = q[torch.from_numpy(seen).to(task.device)] - middle
    others = w[sizes <= OUTLIER * task.lengths.typical] if task.lengths.outliers else w
    cost = -(rows @ (w - others.mean(0)).T).cpu().numpy()

    def complete(permutation: Array) -> Tensor:
        whole = np.empty(task.size, dtype=np.int64)
        free = np.ones(task.size, dtype=bool)
        free[permutation] = False
        whole[seen], whole[unseen] = permutation, np.flatnonzero(free)
        return _place_unseen(torch.from_numpy(whole), task.unseen, None if old is None else old.permutation)

    found = match(
        Problem(
            cost=cost,
            prove=lambda permutation, prices, _: proved(complete(permutation), torch.from_numpy(prices + offset)),
            method=method,
            why=why,
            old=None if old is None else Old(old.permutation.numpy()[seen], old.prices.numpy() - offset),
            recheck=False,
            deadline=task.deadline,
            progress=task.progress,
        )
    )
    permutation, prices = complete(found.permutation), torch.from_numpy(found.prices + offset)
    check_permutation(f"the result of {found.method}", permutation, task.size)
    passes = found.passes + (old is not None)
    return _result(task, permutation, prices, found.known, found.method, found.reason, passes, found.interrupted)


def _by_columns(
    task: Task, class_means: Tensor, norms: Tensor, prototypes: Tensor, why: str
) -> tuple[Assignment, bool]:
    """Without a matrix; and whether the time was over, or Ctrl-C."""
    seen = slice(None) if task.complete else ~task.unseen.to(task.device)
    scores, where = factor_scores(class_means[seen], norms[seen], prototypes)
    share = len(scores.norms) / task.size  # the zero rows count as scores too
    square = share * (scores.spread**2 + scores.mean**2)
    spread = max(square - (share * scores.mean) ** 2, 0.0) ** 0.5
    why = f"{why}; {where}"
    old, unseen = None if task.previous is None else task.previous.permutation, task.unseen
    if scores.spread == 0:  # as far as their moments tell: a look at all scores says whether they differ
        equal, gap = _all_equal(task, scores, old, why)
        if equal is not None:
            return equal, False
        scores.spread = spread = max(spread, gap / task.size)
    order = np.argsort(unseen.numpy(), kind="stable")  # of the search: the rows that are matched, then the unseen ones
    search = Search(
        scores,
        None if old is None else old.numpy()[order],
        None if task.previous is None else _usable(task.previous.prices.numpy(), scores.magnitude),
        accept=lambda objective, gap, prices: _judge(task, spread, objective, gap, old, prices)[0].certified,
        deadline=task.deadline,
        progress=task.progress,
    )
    found = search.run()
    columns = np.empty_like(order)
    columns[order] = found.columns
    permutation = _place_unseen(torch.from_numpy(columns), unseen, old)
    check_permutation("the result of column generation", permutation, task.size)
    known, prices = _judge(task, spread, found.objective, found.gap, permutation, found.prices)
    method = "previous" if found.unchanged else "column_generation"
    reason = found.reason if found.unchanged else f"{why}; {found.reason}"
    result = _result(task, permutation, prices, known, method, reason, found.passes, found.interrupted)
    return result, found.stopped or task.late()


def _judge(
    task: Task, spread: float, objective: float, gap: float, permutation: Tensor | None, prices: Array
) -> tuple[Certificate, Tensor]:
    """The certificate, and the prices with those of left-over columns at 0."""
    given = torch.from_numpy(prices if task.complete else prices - prices.min())
    lengths = task.lengths.each
    if not task.complete and permutation is not None:
        lengths = lengths[permutation[~task.unseen]]
    return task.yardstick(spread).judge(objective, gap, float(lengths.sum() + given.abs().sum())), given


def _usable(prices: Array, largest: float) -> Array | None:
    """Previous prices as they are, or less what they have in common, or None where they belong to other scores."""
    most = USABLE * largest
    if float(np.abs(prices).max()) <= most:
        return prices
    with np.errstate(over="ignore"):
        prices = prices - np.median(prices)
    return prices if float(np.abs(prices).max()) <= most else None


def _all_equal(task: Task, scores: Scores, old: Tensor | None, why: str) -> tuple[Assignment | None, float]:
    """The old or the first permutation, where scores differ by constants of rows and columns only; and its gap."""
    permutation = torch.arange(task.size, device="cpu") if old is None else old
    rows = permutation[~task.unseen]
    search = Search(scores, torch.cat((rows, permutation[task.unseen])).numpy(), None)
    gap = search.prove(search.old, search.prices).gap if len(rows) else 0.0
    known, prices = _judge(task, 0.0, float(search.matched(search.old).sum()), gap, permutation, search.prices)
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
    interrupted: bool = False,
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
        interrupted=interrupted,
    )
