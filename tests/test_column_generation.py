"""assign and solve by each method on random and degenerate instances, against SciPy, with the gap recomputed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from fastproto import assign, reference, solve
from fastproto.assignment import Assignment

from .helpers import unit_rows

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
    return means, prototypes


def check(found: Assignment, scores: Tensor) -> None:
    """Optimal, a permutation, and certified by prices that anyone can check."""
    size = len(scores)
    assert sorted(found.permutation.tolist()) == list(range(size))
    best = float(reference.objective(scores, reference.best_assignment(scores)))
    span = max(best - float(scores.mean(1).sum()), 1e-12)
    assert float(reference.objective(scores, found.permutation)) == pytest.approx(best, abs=1e-6 * span)
    assert found.objective == pytest.approx(best, abs=1e-6 * span)
    gap = float(reference.duality_gap(scores, found.permutation, found.prices.double()))
    assert gap == pytest.approx(found.gap, abs=found.rounding_floor)
    assert found.certified, found


@settings(max_examples=250, deadline=None)
@given(st.integers(1, 120), st.integers(2, 40), st.integers(0, 2**31), st.sampled_from(KINDS))
def test_column_generation_is_optimal_and_certified(c: int, d: int, seed: int, kind: str) -> None:
    means, prototypes = instance(c, d, seed, kind)
    found = assign(means, prototypes, method="column_generation")
    check(found, reference.scores(means.double(), prototypes.double()))
