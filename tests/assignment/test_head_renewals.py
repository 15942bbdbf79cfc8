"""Renewals of a head's assignment: in place, and in the background."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch

from fastproto import PrototypeHead, assign
from fastproto.assignment import Alignment, Assignment

from ..helpers import unit_rows
from .instances import clustered


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


def test_a_renewal_that_still_runs_changes_nothing() -> None:
    head, renewal = a_head(), Future[Assignment | Alignment]()
    before = head.assignment.clone()
    assert head.finish_renewal(renewal, wait=False) is None
    assert torch.equal(head.assignment, before)
    renewal.set_result(head.begin_renewal().result())
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
