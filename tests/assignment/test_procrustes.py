"""align: better than assign, its certificate and limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn.functional import normalize

from fastproto import align, assign, estimate_prototypes, reference
from fastproto.assignment import Assignment
from fastproto.assignment.procrustes import search_rotations

from ..helpers import unit_rows
from .instances import clustered


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 1.0]))
def test_align_is_certified_and_never_worse_than_assign(c: int, d: int, seed: int, unseen: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = clustered(c, d, seed)
    means[torch.rand(c, generator=generator) < unseen] = 0
    prototypes = normalize(torch.randn(c, d, generator=generator), dim=1)
    found = align(means, prototypes, starts=2, seed=seed % 7)
    rotation, inner = found.rotation.double(), found.assignment
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-5)
    assert sorted(inner.permutation.tolist()) == list(range(c))
    assert inner.certified and inner.objective >= assign(means, prototypes).objective - 1e-9
    assert max(found.objectives) <= inner.objective + 1e-6 * c
    scores = reference.scores(means.double(), prototypes.double() @ rotation)
    assert float(reference.objective(scores, inner.permutation)) == pytest.approx(inner.objective, abs=1e-5 * c)
    gap = float(reference.duality_gap(scores, inner.permutation, inner.prices.double()))
    assert gap == pytest.approx(inner.gap, abs=1e-5 * c)


def test_what_is_found_cannot_be_improved_by_either_half() -> None:
    means, prototypes = clustered(60, 5), unit_rows(60, 5)
    found = align(means, prototypes)
    q = normalize(means.double(), dim=1)
    chosen = prototypes.double()[found.assignment.permutation]
    best_turn = torch.linalg.svdvals(chosen.T @ q).sum()  # the largest objective over all rotations, A given
    assert found.assignment.objective == pytest.approx(float(best_turn), rel=1e-4)
    assert assign(means, prototypes @ found.rotation).objective == pytest.approx(found.assignment.objective, rel=1e-4)


def test_more_starts_are_never_worse_and_are_reported() -> None:
    means, prototypes = clustered(40, 3), unit_rows(40, 3)
    results = [align(means, prototypes, starts=starts) for starts in (1, 4, 8)]
    values = [found.assignment.objective for found in results]
    assert values == sorted(values) and values[0] < values[-1]
    assert [len(found.objectives) for found in results] == [1, 4, 8]
    assert results[2].objectives[:4] == results[1].objectives
    assert all(found.stopped == "converged" and found.rounds >= len(found.objectives) for found in results)
    again = align(means, prototypes, starts=4)
    assert torch.equal(again.rotation, results[1].rotation)
    assert torch.equal(again.assignment.permutation, results[1].assignment.permutation)


def test_balanced_prototypes_align_the_same_to_centred_means() -> None:
    prototypes = estimate_prototypes(12, 6).vectors  # a cross polytope: the rows sum to zero
    means = normalize(clustered(12, 6).double(), dim=1)
    centred = means - means.mean(0)
    found, w = align(means, prototypes, starts=1), prototypes.double()
    whole = torch.linalg.svd(w[found.assignment.permutation].T @ means)
    part = torch.linalg.svd(w[found.assignment.permutation].T @ centred)
    torch.testing.assert_close(whole.U @ whole.Vh, part.U @ part.Vh)
    assert found.assignment.objective == pytest.approx(float(part.S.sum()), rel=1e-6)


def test_align_finds_a_turned_copy_given_starts_enough() -> None:
    prototypes = unit_rows(12, 3)
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    means = (prototypes @ turn)[torch.randperm(12)]
    found = align(means, prototypes, starts=100)  # a random start finds it about once in thirty
    assert found.assignment.objective == pytest.approx(12, abs=1e-4)
    torch.testing.assert_close(found.rotation.T @ found.rotation, torch.eye(3))


def test_a_mirror_image_is_found() -> None:
    prototypes = unit_rows(8, 2)
    mirror = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    found = align(prototypes @ mirror, prototypes, starts=16)  # in the plane there are many local optima
    assert found.assignment.objective == pytest.approx(8, abs=1e-5)
    assert float(torch.linalg.det(found.rotation)) == pytest.approx(-1, abs=1e-5)


def test_classes_never_seen_have_no_say() -> None:
    means, prototypes = clustered(10, 3), unit_rows(10, 3)
    means[4:] = 0
    found = align(means, prototypes)
    q = normalize(means[:4].double(), dim=1)
    seen = prototypes.double()[found.assignment.permutation[:4]]
    assert found.assignment.objective == pytest.approx(float(torch.linalg.svdvals(seen.T @ q).sum()), rel=1e-4)
    nothing = align(torch.zeros(10, 3), prototypes)
    assert nothing.assignment.objective == 0
    torch.testing.assert_close(nothing.rotation, torch.eye(3))


class InterruptedAt:
    """``assign``, until Ctrl-C is pressed in one of its calls."""

    def __init__(self, call: int, *, returned: bool = False) -> None:
        self.call, self.returned, self.calls = call, returned, 0  # returned: assign catches it, as it does in a search

    def __call__(self, *args: Any, **kwargs: Any) -> Assignment:
        self.calls += 1
        if self.calls < self.call:
            return assign(*args, **kwargs)
        if not self.returned:
            raise KeyboardInterrupt
        return replace(assign(*args, **kwargs), interrupted=True)


def test_a_time_limit_or_an_interruption_returns_the_best_so_far() -> None:
    means, prototypes = clustered(40, 3), unit_rows(40, 3)
    plain = assign(means, prototypes)
    at_once = align(means, prototypes, time_limit=0.0)
    assert at_once.stopped == "time limit" and at_once.rounds == 1
    assert at_once.assignment.objective >= plain.objective
    found = search_rotations(means, prototypes, starts=50, assigner=InterruptedAt(4))
    assert found.stopped == "interrupted" and found.rounds == 2
    assert found.assignment.objective > plain.objective
    scores = reference.scores(means.double(), (prototypes @ found.rotation).double())
    gap = float(reference.duality_gap(scores, found.assignment.permutation, found.assignment.prices.double()))
    assert gap == pytest.approx(found.assignment.gap, abs=1e-4)


@pytest.mark.parametrize(
    ("means", "options", "message"),
    [(torch.ones(3, 2), {"starts": 0}, "starts is 0"), (torch.full((3, 2), float("nan")), {}, "NaN")],
)
def test_align_errors(means: Tensor, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(means, unit_rows(3, 2), **options)


def test_an_interrupted_assignment_ends_the_alignment() -> None:
    means, prototypes = torch.randn(400, 16), unit_rows(400, 16)
    interrupted = InterruptedAt(3, returned=True)
    found = search_rotations(means, prototypes, assigner=interrupted)
    assert found.stopped == "interrupted" and interrupted.calls == 3
    assert sorted(found.assignment.permutation.tolist()) == list(range(400))


def test_an_interruption_of_the_last_assignment_is_reported() -> None:
    means, prototypes = clustered(40, 3), unit_rows(40, 3)
    whole = InterruptedAt(1 << 30)
    assert search_rotations(means, prototypes, starts=1, assigner=whole).stopped == "converged"
    last = InterruptedAt(whole.calls, returned=True)
    assert search_rotations(means, prototypes, starts=1, assigner=last).stopped == "interrupted"
    assert last.calls == whole.calls
