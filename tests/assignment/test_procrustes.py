"""align: better than assign, its certificate and limits; renewals of the head in the background."""

from __future__ import annotations

import sys
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn.functional import normalize

import fastproto.head_state as head_module
from fastproto import PrototypeHead, align, assign, estimate_prototypes, reference
from fastproto.assignment import Alignment, Assignment
from fastproto.assignment.column_generation import Search

from ..helpers import unit_rows

# The function of the same name hides the module.
align_module: Any = sys.modules["fastproto.assignment.procrustes"]


def clustered(c: int, d: int, seed: int = 0) -> Tensor:
    """Class means of a network at its start: a large common part, a few groups, and a little of their own."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randn(c // 5 + 1, d, generator=generator)[torch.arange(c) % (c // 5 + 1)]
    return 3 * torch.randn(d, generator=generator) + groups + 0.3 * torch.randn(c, d, generator=generator)


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


def test_a_time_limit_or_an_interruption_returns_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    means, prototypes = clustered(40, 3), unit_rows(40, 3)
    plain = assign(means, prototypes)
    at_once = align(means, prototypes, time_limit=0.0)
    assert at_once.stopped == "time limit" and at_once.rounds == 1
    assert at_once.assignment.objective >= plain.objective
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Assignment:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return assign(*args, **kwargs)

    monkeypatch.setattr(align_module, "assign", interrupted)
    found = align(means, prototypes, starts=50)
    assert found.stopped == "interrupted" and found.rounds == 2
    assert found.assignment.objective > plain.objective
    monkeypatch.setattr(align_module, "assign", assign)
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


# --- the head ------------------------------------------------------------------------------------------------------


def a_head(c: int = 30, d: int = 3) -> PrototypeHead:
    head = PrototypeHead(c, d, prototypes=unit_rows(c, d))
    head.class_means.copy_(clustered(c, d))
    return head


def test_other_class_means_than_the_heads_own() -> None:
    head, means = a_head(), clustered(30, 3, seed=5)
    own, before = head.class_means.clone(), head.assignment.clone()
    found = head.reassign(class_means=means)
    assert torch.equal(found.permutation, assign(means, head.prototypes).permutation)
    assert found.changed == int((before != head.assignment).sum()) > 0
    w = head.prototypes.clone()
    turned = head.align(class_means=means)
    assert turned.assignment.objective > found.objective
    torch.testing.assert_close(head.prototypes @ head.prototypes.T, w @ w.T, rtol=0, atol=1e-5)
    assert torch.equal(head.class_means, own)
    assert head.reassign(class_means=means).changed == 0, "the buffers must fit the turned prototypes"


@pytest.mark.parametrize("aligned", [False, True])
def test_a_renewal_in_the_background_equals_one_in_place(aligned: bool) -> None:
    one, two = a_head(), a_head()
    two.load_state_dict(one.state_dict())
    renewal = two.begin_renewal(aligned=aligned)
    two.class_means.neg_()  # steps go on: the renewal has its own copy
    in_place: Assignment | Alignment = one.align() if aligned else one.reassign()
    found = two.finish_renewal(renewal)
    assert type(found) is type(in_place)
    for name in ("prototypes", "assignment", "prices"):
        assert torch.equal(getattr(two, name), getattr(one, name)), name


def test_a_renewal_that_still_runs_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head, gate, before = a_head(), threading.Event(), None

    def slow(*args: Any, **kwargs: Any) -> Assignment:
        gate.wait()
        return assign(*args, **kwargs)

    monkeypatch.setattr(head_module, "assign", slow)
    renewal, before = head.begin_renewal(), head.assignment.clone()
    assert head.finish_renewal(renewal, wait=False) is None
    assert torch.equal(head.assignment, before)
    gate.set()
    assert head.finish_renewal(renewal, adopt=False) is not None
    assert torch.equal(head.assignment, before)
    found = head.finish_renewal(renewal, wait=False)
    assert isinstance(found, Assignment) and found.changed
    assert torch.equal(head.assignment, found.permutation)


def test_an_error_in_the_background_is_raised() -> None:
    head = a_head()
    head.class_means[0, 0] = float("nan")
    renewal = head.begin_renewal()
    with pytest.raises(ValueError, match="NaN"):
        head.finish_renewal(renewal)


def test_an_interrupted_assignment_ends_the_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    means, prototypes = torch.randn(400, 16), unit_rows(400, 16)
    genuine, calls = Search.settle, 0

    def interrupt(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return genuine(*arguments, **named)

    monkeypatch.setattr(Search, "settle", interrupt)
    found = align(means, prototypes)
    assert found.stopped == "interrupted" and calls == 3
    assert sorted(found.assignment.permutation.tolist()) == list(range(400))
