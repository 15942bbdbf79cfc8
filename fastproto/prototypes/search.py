"""The search for (C, D) without a closed form: which starts, and which sharpness of the potential."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastproto.backend import resolve
from fastproto.ops.gaussian_potential import potential_and_pull
from fastproto.ops.nearest_prototypes import BLOCK
from fastproto.prototypes.bounds import max_cosine_bound, uniformity_bound
from fastproto.prototypes.budget import Budget
from fastproto.prototypes.codes import binary_code, code_capacity, code_cosine
from fastproto.prototypes.energy import PLAIN_SHARPNESS, energy
from fastproto.prototypes.optimise import minimise
from fastproto.prototypes.population import CHAINS, MOVED, hopping_population
from fastproto.prototypes.starts import PASSES, SMALL, START_STRIDE, WIDE, first_points, random_start, random_value
from fastproto.support.options import Effort, PassPrecision, Precision

TINY = 150_000  # C²·D up to which a population hops in batched calls
STARTS = 12  # at most
# With C >= 4D a descent was never seen to come closer than this to the bound on the max cosine.
DESCENT_MARGIN = 0.04
ANNEALED = 2_500_000  # as SMALL, for annealing, which needs more passes from each start
# Annealing schedules: the first sharpness as a multiple of t, and the factor from one descent to the next. The slow
# schedule finds arrangements that the others miss where C is a few times D; in few dimensions the others do better.
SCHEDULES = ((1.0, math.sqrt(2)), (16.0, 4.0), (1.0, math.sqrt(2)), (4.0, 4.0))
CODE_MARGIN = 1e-6  # in L_uni, by which a code must be lower: a search may have found it itself
FINALISTS = 3  # annealed descents that go on to the end


def search_uniform(
    num_classes: int,
    dim: int,
    t: float,
    seed: int,
    budget: Budget,
    *,
    device: torch.device | str | None = None,
    precision: Precision = "highest",
) -> Tensor:
    """The lowest L_uni of a few descents; where C is small, then of hops from the best two or of a population.

    Local minima differ by about 1 % of what a descent gains; only many tries find the lowest.
    """
    tries = number_of_starts(num_classes, dim)
    found: list[tuple[float, Tensor]] = []
    tolerance = 0.0
    for k in range(tries):
        points = first_points(num_classes, dim, t, seed + START_STRIDE * k, budget, device)
        if k == 0:
            gain = random_value(num_classes, dim, t) - uniformity_bound(num_classes, dim, t)
            tolerance = (2e-4 if num_classes**2 * dim <= WIDE else 5e-4) * gain
        # "higher" is within 3e-5 of the float32 gradient in half the time; no descent was seen to end higher
        finest: PassPrecision = "higher" if resolve("gaussian_potential", points).backend == "triton" else "highest"
        if precision != "highest":
            points, _ = minimise(points, t, budget, passes=PASSES, tolerance=5 * tolerance, precision=precision)
        points, value = minimise(points, t, budget, passes=PASSES, tolerance=tolerance, precision=finest)
        found.append((value, points))
        if budget.over():
            break
    found.sort(key=lambda pair: pair[0])
    if tries == 1 or budget.over():
        return found[0][1]
    if num_classes**2 * dim <= TINY and t <= PLAIN_SHARPNESS[torch.float64] and budget.affords(3 * CHAINS):
        for value, points in hopping_population(num_classes, dim, t, seed, budget):
            found.append((value, points.to(found[0][1])))
            if not budget.over():
                points, value = minimise(found[-1][1], t, budget, passes=PASSES, tolerance=0.05 * tolerance)
                found.append((value, points))
        return min(found, key=lambda pair: pair[0])[1]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(tries):
        for k in range(2):
            points = _hop(found[k][1], t, generator)
            budget.spent += 1
            points, value = minimise(points, t, budget, passes=PASSES, tolerance=tolerance)
            if value < found[k][0]:
                found[k] = value, points
            if budget.over():
                return min(found, key=lambda pair: pair[0])[1]
    return minimise(min(found, key=lambda pair: pair[0])[1], t, budget, passes=PASSES, tolerance=0.05 * tolerance)[0]


def or_code(points: Tensor, t: float, budget: Budget) -> tuple[Tensor, str]:
    """The points that a search for a low L_uni ended at or, where it is lower, the binary code; and what made them.

    A code that is nearly whole is far lower than what descents reach, and none of less than half its words was seen to
    be.
    """
    count, dim = points.shape
    capacity = code_capacity(dim)
    if capacity < 2 * count <= 2 * capacity and not budget.interrupted:
        code = binary_code(count, dim).to(points)
        if energy(t)(code)[0] < budget.lowest() - CODE_MARGIN:
            return code, "binary_code"
    return points, "lbfgs"


def number_of_starts(num_classes: int, dim: int) -> int:
    return max(1, min(STARTS, SMALL // (num_classes**2 * dim)))


def _hop(points: Tensor, t: float, generator: torch.Generator) -> Tensor:
    """A copy of the points in which those of highest potential are replaced by random ones."""
    count, dim = points.shape
    crowded = potential_and_pull(points, None, t)[0].topk(max(2, round(MOVED * count))).indices
    fresh = torch.randn(len(crowded), dim, generator=generator, dtype=torch.float32, device="cpu").to(points)
    points = points.clone()
    points[crowded] = torch.nn.functional.normalize(fresh, dim=1)
    return points


# --- max cosine ------------------------------------------------------------------------------------------------------


def search_max_cosine(
    num_classes: int,
    dim: int,
    t: float,
    seed: int,
    budget: Budget,
    *,
    device: torch.device | str | None = None,
    codes: bool = True,
    effort: Effort = "best",
) -> tuple[Tensor, str]:
    """The vectors of smallest max cosine among annealed descents and, if there is one, a binary code; and the method.

    ``normal`` anneals twice and continues with the better result; ``best`` up to 24 times, with the best three.

    No descent from a code was seen to lower its max cosine, so a code is taken unchanged. Descents are skipped where
    none was seen to do better (DESCENT_MARGIN), or where C²·D is large.
    """
    found: list[tuple[float, Tensor, str]] = []
    if codes and 4 * dim <= num_classes <= code_capacity(dim):
        start = binary_code(num_classes, dim).to(random_start(2, dim, 0, device))
        found.append((max_cosine(start), start, "binary_code"))
        level = max_cosine_bound(num_classes, dim) + DESCENT_MARGIN
        if code_cosine(num_classes, dim) <= level or num_classes**2 * dim > WIDE:
            return found[0][1:]
    size = num_classes**2 * dim
    # The arrangement in which a search ends is decided by 32t: only the best continue.
    middle = []
    starts, finalists = (2 * STARTS, FINALISTS) if effort == "best" else (2, 1)
    for k in range(max(1, min(starts, ANNEALED // size))):
        points = random_start(num_classes, dim, seed + START_STRIDE * k, device)
        first, factor = SCHEDULES[k % len(SCHEDULES)] if size <= SMALL else (1.0, 2.0)
        points = anneal(points, first * t, 32 * t, factor, budget)
        middle.append((max_cosine(points), points))
        if budget.over():
            break
    last = 2048 * t if size <= SMALL else 256 * t if size <= WIDE else 64 * t
    for reached, points in sorted(middle, key=lambda pair: pair[0])[:finalists]:
        if not budget.over():
            points = anneal(points, 64 * t, last, 2.0, budget)
            reached = max_cosine(points)
        found.append((reached, points, "lbfgs"))
    return min(found, key=lambda triple: triple[0])[1:]


def anneal(points: Tensor, first: float, last: float, factor: float, budget: Budget) -> Tensor:
    """Descents at rising t: the sharper the potential, the more it depends on the closest pairs alone.

    ``L_uni / 2t + 1`` tends to the max cosine; each descent ends when it gains less than 1e-6 of that in 20 passes.
    """
    t, best, lowest = first, points, math.inf
    passes = PASSES // 2 if len(points) ** 2 * points.shape[1] <= WIDE else PASSES // 8
    while t <= last * 1.001 and not budget.over():
        points, _ = minimise(points, t, budget, passes=passes, tolerance=2e-6 * t)
        reached = max_cosine(points)
        if reached < lowest:
            best, lowest = points, reached
        t *= factor
    return best


def max_cosine(points: Tensor) -> float:
    highest = points.new_tensor(-1.0)
    for start in range(0, len(points), BLOCK):
        for column in range(start, len(points), BLOCK):
            cosines = points[start : start + BLOCK] @ points[column : column + BLOCK].T
            if column == start:
                cosines.fill_diagonal_(-1.0)
            highest = torch.maximum(highest, cosines.max())
    return float(highest)
