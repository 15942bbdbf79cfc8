"""Matches class means with prototypes: on the score matrix, or by column generation without it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, certify, directions, score_spread
from fastproto.assignment.column_generation import cold_prices, search
from fastproto.assignment.inputs import Solver, check_memory, fits
from fastproto.assignment.lapjv import LEVELS, solve_grid
from fastproto.assignment.match_matrix import MatrixProblem, match_matrix
from fastproto.assignment.matching import STILL_OPTIMAL, Matching, Previous
from fastproto.assignment.means_problem import OUTLIER, MeansProblem
from fastproto.assignment.pricing import prove
from fastproto.assignment.scores import FactorScores, Scores
from fastproto.assignment.scores_cpu import CpuFactorScores
from fastproto.assignment.scores_gpu import GpuFactorScores
from fastproto.assignment.search_state import Accept, ScoreReader
from fastproto.backend import resolve
from fastproto.support.checks import TINY_NORM, check_permutation

USABLE = 64  # times the largest score: larger previous prices belong to other scores and are dropped
DENSE_MOST = 1 << 14  # classes: the limit for a dense solve after column generation has found no certificate


def match_means(problem: MeansProblem, method: Solver, why: str) -> Matching:
    """Solves by ``method``, then by a dense solver if that result is not certified and the matrix fits."""
    possible = problem.size <= DENSE_MOST and fits(problem.size, problem.size)
    if method == "dense" or (possible and problem.lengths.outliers):
        return match_by_matrix(problem, method, why)
    found = match_by_columns(problem, why, by_lapjv=method == "lapjv")
    if found.known.certified or found.ending != "converged" or problem.late() or not possible:
        return found
    why = f"{found.reason}; the result of {found.method.replace('_', ' ')} was not certified"
    again = match_by_matrix(problem, "dense", why)
    return again if again.known.certified or again.known.gap <= found.known.gap else found


def match_by_matrix(problem: MeansProblem, method: Solver, why: str) -> Matching:
    """Solves on the centred float64 scores: centring keeps the optimum, and the digits of collapsed class means."""
    q, w = directions(problem.class_means), problem.prototypes.detach().double()
    sizes, yardstick = problem.lengths.each.to(problem.device), problem.yardstick(score_spread(q, w))
    previous = problem.previous

    def proved(permutation: Ints, prices: Floats) -> Certificate:
        a, p = (torch.from_numpy(x).to(problem.device) for x in (permutation, prices))
        return certify(lambda start, stop: q[start:stop] @ w.T, a, p, yardstick, sizes)

    if previous is not None:
        prices = problem.final_prices(previous.prices)
        known = proved(previous.permutation, prices)
        if known.certified:
            return Matching(previous.permutation, prices, known, "previous", STILL_OPTIMAL, 1)
    check_memory(problem.size, problem.size, "method='column_generation', which never forms it")
    seen = np.flatnonzero(~problem.unseen)
    if not len(seen):
        order = np.arange(problem.size) if previous is None else previous.permutation
        prices = np.zeros(problem.size)
        return Matching(order, prices, proved(order, prices), "dense", f"{why}; no class was seen", 1)
    middle = q.mean(0) if problem.complete else torch.zeros_like(q[0])  # not centred where unseen rows score 0
    offset = (w @ middle).cpu().numpy()
    rows = q[torch.from_numpy(seen).to(problem.device)] - middle
    others = w[sizes <= OUTLIER * problem.lengths.typical] if problem.lengths.outliers else w
    found = match_matrix(
        MatrixProblem(
            cost=-(rows @ (w - others.mean(0)).T).cpu().numpy(),
            prove=lambda permutation, prices, _: proved(problem.with_unseen(permutation), prices + offset),
            method=method,
            why=why,
            previous=None if previous is None else Previous(previous.permutation[seen], previous.prices - offset),
            recheck=False,
            deadline=problem.deadline,
            progress=problem.progress,
        )
    )
    return Matching(
        permutation=_checked(problem.with_unseen(found.permutation), found.method),
        prices=found.prices + offset,
        known=found.known,
        method=found.method,
        reason=found.reason,
        passes=found.passes + (previous is not None),
        ending=found.ending,
    )


def match_by_columns(problem: MeansProblem, why: str, *, by_lapjv: bool = False) -> Matching:
    """Solves by column generation, without a matrix; ``by_lapjv`` starts from the result of lapjv, which needs one."""
    seen = slice(None) if problem.complete else torch.from_numpy(~problem.unseen).to(problem.device)
    scores, where = factor_scores(problem.class_means[seen], problem.norms[seen], problem.prototypes)
    why = f"{why}; {where}"
    search_spread, spread = scores.spread, _spread_of_all(scores, problem.size)
    if search_spread == 0:  # as the moments say; a pass over all scores tells whether they are equal
        equal, gap = _all_equal(problem, scores, why)
        if equal is not None:
            return equal
        search_spread = spread = max(spread, gap / problem.size)
    begin = prices = None
    old = np.arange(problem.size) if problem.previous is None else problem.previous.permutation
    if problem.previous is not None:
        begin = np.concatenate((old[~problem.unseen], old[problem.unseen]))
        prices = _usable(problem.previous.prices, scores.magnitude)

    accepted: Certificate | None = None  # the certificate of the previous result

    def accept(objective: float, gap: float, prices: Floats) -> bool:
        nonlocal accepted
        accepted = problem.certificate(spread, objective, gap, old, problem.final_prices(prices))
        return accepted.certified

    lapjv_ran = by_lapjv and not _still_optimal(ScoreReader(scores, search_spread), begin, prices, accept)
    if lapjv_ran:
        begin, prices = _start_by_lapjv(problem, begin)
        old = problem.with_unseen(begin[: scores.shape[0]])
        why = f"{why}; lapjv on a grid of whole numbers"
    found = search(
        scores,
        begin,
        prices,
        spread=search_spread,
        accept=accept,
        deadline=problem.deadline,
        progress=problem.progress,
    )
    permutation = problem.with_unseen(found.columns[: scores.shape[0]])
    prices = problem.final_prices(found.prices)
    known = accepted if found.unchanged else None
    return Matching(
        permutation=_checked(permutation, "column generation"),
        prices=prices,
        known=known or problem.certificate(spread, found.objective, found.gap, permutation, prices),
        method=("lapjv" if lapjv_ran else "previous") if found.unchanged else "column_generation",
        reason=(why if lapjv_ran else found.reason) if found.unchanged else f"{why}; {found.reason}",
        passes=found.passes,
        ending=found.ending,
    )


def _still_optimal(reader: ScoreReader, begin: Ints | None, prices: Floats | None, accept: Accept) -> bool:
    if begin is None or prices is None:
        return False
    gap = prove(reader, begin, prices).gap
    return accept(float(reader.matched(begin).sum()), gap, prices)


def _start_by_lapjv(problem: MeansProblem, keep: Ints | None) -> tuple[Ints, Floats]:
    """Columns [C], first those of the seen classes, and prices [C]; ``keep`` holds the columns that win ties."""
    check_memory(problem.size, problem.size, "method='column_generation', which never forms it")
    q, w = directions(problem.class_means).cpu()[torch.from_numpy(~problem.unseen)], problem.prototypes.detach().cpu()
    w = w.double()
    middle = q.mean(0) if problem.complete else torch.zeros_like(q[0])  # not centred where unseen rows score 0
    grid = torch.zeros(problem.size, problem.size, dtype=torch.float32, device="cpu")
    cost = grid[: len(q)]
    torch.mm((middle - q).float(), (w - w.mean(0)).float().T, out=cost)
    least = cost.amin(0) if problem.complete else torch.zeros_like(grid[0])
    cost -= least if problem.complete else cost.amin(1, keepdim=True)
    step = max(float(cost.max()), TINY_NORM) / LEVELS
    cost.mul_(1 / step).round_()
    columns, duals = solve_grid(grid.numpy(), None if keep is None else keep[: len(q)])
    return columns, (w @ middle - least.double()).numpy() - step * duals


def factor_scores(class_means: Tensor, norms: Tensor, prototypes: Tensor) -> tuple[FactorScores, str]:
    """(scores, backend) of nonzero class means [m, D] with ``norms`` [m] float64 and prototypes [C, D].

    Raises:
        ValueError, ImportError: as :func:`fastproto.backend.resolve`.
    """
    dtype = torch.float64 if torch.float64 in (class_means.dtype, prototypes.dtype) else torch.float32
    q, w = (x.detach().to(dtype) for x in (class_means, prototypes))
    # the kernels get centred float32 rows, whatever the dtype of the inputs
    choice = resolve("assign", *(x.new_empty(0, dtype=torch.float32) for x in (q, w)))
    if choice.backend == "triton":
        return GpuFactorScores(q, norms, w), f"passes on {choice}"
    q, w = (x.cpu().contiguous() for x in (q, w))
    return CpuFactorScores(q, norms.cpu().numpy(), w), f"passes on {choice}"


def _spread_of_all(scores: FactorScores, size: int) -> float:
    """The standard deviation of all scores, those of unseen classes (0) included."""
    share = scores.shape[0] / size
    square = share * (scores.spread**2 + scores.mean**2)
    return float(max(square - (share * scores.mean) ** 2, 0.0) ** 0.5)


def _usable(prices: Floats, largest: float) -> Floats | None:
    """Previous prices, less their median if they are large; None if they are too large for these scores."""
    most = USABLE * largest
    if float(np.abs(prices).max()) <= most:
        return prices
    with np.errstate(over="ignore"):
        prices = prices - np.median(prices)
    return prices if float(np.abs(prices).max()) <= most else None


def _all_equal(problem: MeansProblem, scores: Scores, why: str) -> tuple[Matching | None, float]:
    """(matching, gap) of the previous or the identity permutation; no matching if another permutation may be better."""
    permutation = np.arange(problem.size) if problem.previous is None else problem.previous.permutation
    columns = np.concatenate((permutation[~problem.unseen], permutation[problem.unseen]))
    reader, prices = ScoreReader(scores, spread=0.0), cold_prices(scores)
    gap = prove(reader, columns, prices).gap if reader.rows else 0.0
    prices = problem.final_prices(prices)
    known = problem.certificate(0.0, float(reader.matched(columns).sum()), gap, permutation, prices)
    if not known.certified:
        return None, gap
    reason = f"{why}; all permutations are equally good"
    return Matching(permutation, prices, known, "column_generation", reason, reader.passes), gap


def _checked(permutation: Ints, method: str) -> Ints:
    check_permutation(f"the result of {method}", torch.from_numpy(permutation), len(permutation))
    return permutation
