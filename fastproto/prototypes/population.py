"""Basin hopping with a population of small arrangements, evaluated in one batched call.

At a hundred points an evaluation costs little more than its calls, so a batch of 32 costs hardly more than one. Each
arrangement is relaxed with Barzilai-Borwein steps. A hop moves some of its points to random places and relaxes it
again; a result that is not lower is discarded. Every few generations the better half replaces the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastproto.prototypes.budget import Budget

CHAINS = 32
FIRST, AGAIN = 600, 200  # steps of relaxation before the first hop and after each hop; L-BFGS does the rest
GENERATIONS, PATIENCE = 60, 12  # at most, in total and without a new lowest value
BREED = 5  # generations between two replacements
MOVED = 0.05  # share of the points, those of highest potential, that a hop moves
STEPS = 0.02, 20.0  # shortest and longest step along C times the gradient
LONGEST = 1.0  # no point moves farther in one step


def hopping_population(num_classes: int, dim: int, t: float, seed: int, budget: Budget) -> list[tuple[float, Tensor]]:
    """Up to three arrangements of lowest L_uni: the value and [C, D] float64, nearly relaxed, lowest first.

    Ends early when the budget is over; Ctrl-C is recorded in it.
    """
    generator = torch.Generator().manual_seed(seed)

    def directions(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)

    points = directions(CHAINS, num_classes, dim)
    values = torch.full((CHAINS,), torch.inf, dtype=torch.float64)
    moved, lowest, since = max(2, round(MOVED * num_classes)), float("inf"), 0
    try:
        points, values = relax(points, t, FIRST, budget)
        for generation in range(1, GENERATIONS + 1):
            if not budget.affords(3 * CHAINS):  # the potentials of a hop, the first evaluation and one step
                break
            budget.spent += CHAINS
            crowded = weights(points, t).sum(2).topk(moved, dim=1).indices[:, :, None].expand(-1, -1, dim)
            hopped, reached = relax(points.scatter(1, crowded, directions(CHAINS, moved, dim)), t, AGAIN, budget)
            lower = reached < values
            points, values = torch.where(lower[:, None, None], hopped, points), torch.where(lower, reached, values)
            if generation % BREED == 0:
                better = values.argsort()[: CHAINS // 2]
                points, values = points[better].repeat(2, 1, 1), values[better].repeat(2)
            since = 0 if float(values.min()) < lowest - 1e-7 else since + 1
            lowest = float(values.min())
            if since == PATIENCE:
                break
    except KeyboardInterrupt:
        budget.interrupted = True
    order = values.argsort()
    other = values[order].diff(prepend=values.new_tensor([-torch.inf])) > 1e-9  # the replacements have made copies
    return [(float(values[k]), points[k]) for k in order[other][:3]]


def weights(points: Tensor, t: float) -> Tensor:
    """g_ij of each arrangement [S, C, C], zero for the self-pairs."""
    g = torch.matmul(points, points.mT).sub_(1).mul_(2 * t).exp_()
    g.diagonal(dim1=1, dim2=2).zero_()
    return g


def relax(points: Tensor, t: float, steps: int, budget: Budget) -> tuple[Tensor, Tensor]:
    """The lowest iterate [S, C, D] of a Barzilai-Borwein descent from each arrangement, and its L_uni [S]."""
    chains, count, _ = points.shape

    def evaluate(points: Tensor) -> tuple[Tensor, Tensor]:
        g = weights(points, t)
        total, pull = g.sum((1, 2)), g @ points
        pull = torch.addcmul(pull, (pull * points).sum(-1, keepdim=True), points, value=-1)
        return torch.log(total / (count * (count - 1))), pull * (4 * t * count / total)[:, None, None]

    value, gradient = evaluate(points)
    budget.count(t, float(value.min()), chains)
    best, lowest = points, value
    size = torch.full((chains,), 0.1 / t, dtype=points.dtype)
    for step in range(steps):
        if not budget.affords(chains):
            break
        longest = torch.linalg.vector_norm(gradient, dim=2).amax(1).clamp_min(1e-30)
        taken = torch.minimum(size, LONGEST / longest)[:, None, None]
        moved = torch.nn.functional.normalize(points - taken * gradient, dim=2)
        value, new = evaluate(moved)
        budget.count(t, float(torch.minimum(value, lowest).min()), chains)
        s, y = moved - points, new - gradient
        along = (s * y).sum((1, 2))
        secant = (s * s).sum((1, 2)) / along if step % 2 else along / (y * y).sum((1, 2))
        size = torch.where(along > 0, secant, 0.1 / t).clamp(STEPS[0] / t, STEPS[1])
        points, gradient = moved, new
        lower = value < lowest
        best, lowest = torch.where(lower[:, None, None], points, best), torch.where(lower, value, lowest)
    return best, lowest
