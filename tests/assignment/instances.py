"""Class means and prototypes of many kinds, and the checks that an assignment is optimal."""

from __future__ import annotations

import importlib.util
import math
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from fastproto import reference
from fastproto.assignment import Assignment
from fastproto.assignment.array_types import Floats
from fastproto.assignment.inputs import Method

METHODS = [m for m in get_args(Method) if m != "lapjv" or importlib.util.find_spec("lapjv")]

KINDS = [
    "random",
    "clustered",
    "near",
    "ties",
    "zero rows",
    "duplicates",
    "same rows",
    "collapsed",
    "scaled",
    "all zero",
    "apart",
    "orthogonal",
]


def instance(c: int, d: int, seed: int, kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def some(share: float) -> Tensor:
        return torch.rand(c, generator=generator) < share

    means, prototypes = normal(c, d), torch.nn.functional.normalize(normal(c, d), dim=1)
    if kind == "clustered":
        means = normal(1, d) + 0.5 * normal(c // 20 + 1, d)[torch.arange(c) // 20] + 0.1 * means
    elif kind == "near":
        means = prototypes[torch.randperm(c, generator=generator)] + 0.2 * means
    elif kind == "ties":
        means, prototypes = means.sign(), torch.nn.functional.normalize(prototypes.sign(), dim=1)
    elif kind == "zero rows":
        means[some(0.5)] = 0
    elif kind == "duplicates":
        means, prototypes = means[torch.arange(c) // 2], prototypes[torch.arange(c) // 3]
    elif kind == "same rows":
        means[some(0.5)] = means[0].clone()
    elif kind == "collapsed":
        means = means[:1] + 1e-5 * means
    elif kind == "scaled":
        means, prototypes = means * normal(c, 1).exp(), prototypes * normal(c, 1).exp()
    elif kind == "all zero":
        means = torch.zeros_like(means)
    elif kind in ("apart", "orthogonal"):  # what the scores' spread is made of cancels, nearly or altogether
        half = torch.arange(d) < d // 2
        means = torch.where(half, means, 1e-3 * means if kind == "apart" else 0.0)
        prototypes = torch.where(half, 0.0, prototypes)
    return means, prototypes


def clustered(c: int, d: int, seed: int = 0) -> Tensor:
    """Class means of a network at its start: a large common part, a few groups, and a little of their own."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(c // 5 + 1, d, generator=generator)[torch.arange(c) % (c // 5 + 1)]
    return 3 * torch.randn(d, generator=generator) + groups + 0.3 * torch.randn(c, d, generator=generator)


def assert_optimal(found: Assignment, scores: Tensor, within: float = 1e-6) -> None:
    """A permutation, as good as SciPy's, and certified by prices that anyone can check.

    ``within`` is relative to the distance between the best objective and the mean one.
    """
    size = len(scores)
    assert sorted(found.permutation.tolist()) == list(range(size))
    best = float(reference.objective(scores, reference.best_assignment(scores)))
    span = max(best - float(scores.mean(1).sum()), 1e-12)
    # where all permutations are equally good, the sums of two of them differ by rounding
    close = pytest.approx(best, abs=max(within * span, found.rounding_floor))
    assert found.objective == close
    assert float(reference.objective(scores, found.permutation)) == close
    gap = float(reference.duality_gap(scores, found.permutation, found.prices.double()))
    assert gap == pytest.approx(found.gap, abs=found.rounding_floor)
    assert found.certified, found
    assert found.gap <= 1e-6 * size * float(scores.std(correction=0)) + found.rounding_floor


def assert_cheapest(found: Assignment, cost: Floats) -> None:
    """As cheap as SciPy's, and proved by prices that anyone can check; the gap is that of the prices."""
    rows, columns = linear_sum_assignment(cost)
    best = math.fsum(cost[rows, columns])
    n, m = cost.shape
    permutation, prices = found.permutation.numpy(), found.prices.numpy()
    mine = np.flatnonzero(permutation >= 0)
    assert permutation.shape == (n,) and prices.shape == (m,) and permutation.dtype == np.int64
    assert len(set(permutation[mine])) == len(mine) == min(n, m) and set(permutation[permutation < 0]) <= {-1}
    assert math.fsum(cost[mine, permutation[mine]]) == pytest.approx(
        best, rel=1e-12, abs=1e-12 * np.ptp(prices) + 1e-300
    )
    assert found.objective == pytest.approx(best, rel=1e-12) and found.certified
    value = (-cost - prices).max(1)
    if n > m:
        value = np.maximum(value, 0)
    if n < m:
        assert prices.min() == 0 and np.delete(prices, permutation).max() <= 1e-12 * np.abs(cost).max()
    gap = value.sum() + prices.sum() + best
    assert gap == pytest.approx(found.gap, abs=found.rounding_floor + 1e-300)
