"""What the rows of each baseline are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fastproto import estimate_prototypes
from fastproto.baselines import (
    ETFHead,
    FixedHead,
    FixedSoftmaxHead,
    HPNHead,
    SoftmaxHead,
    TrainedPrototypesHead,
    semantic_prototypes,
)

from ..helpers import unit_rows


def test_etf_is_a_simplex_in_random_position() -> None:
    for c, d in ((2, 2), (6, 5), (6, 9)):
        head = ETFHead(c, d)
        gram = head.prototypes @ head.prototypes.T
        expected = torch.full((c, c), -1 / (c - 1)).fill_diagonal_(1.0)
        torch.testing.assert_close(gram, expected, atol=1e-6, rtol=0)
    assert torch.equal(ETFHead(6, 9).prototypes, head.prototypes)
    assert not torch.allclose(ETFHead(6, 9, seed=1).prototypes, head.prototypes, atol=0.1)
    x, y = torch.randn(4, 9), torch.randint(0, 6, (4,))
    h, w = 2 * F.normalize(x, dim=1), 3 * head.prototypes[y]  # E_H = 4, E_W = 9
    torch.testing.assert_close(ETFHead(6, 9, energy=6.0)(x, y), (((h * w).sum(1) - 6) ** 2 / 12).mean())


def test_fixed_heads_of_one_seed_share_prototypes_and_assignment() -> None:
    made = estimate_prototypes(6, 5).vectors
    for seed in (0, 1):
        fixed, softmax = FixedHead(6, 5, seed=seed), FixedSoftmaxHead(6, 5, seed=seed)
        assert torch.equal(softmax.prototypes, made)
        assert torch.equal(softmax.assignment, fixed.assignment)
        assert torch.equal(softmax.weight_by_label(), fixed.weight_by_label())
    assert not torch.equal(FixedHead(6, 5).assignment, fixed.assignment)


def test_hpn_prototypes() -> None:
    given = unit_rows(12, 4)
    assert torch.equal(HPNHead(12, 4, prototypes=given).weight_by_label(), given)
    made = estimate_prototypes(8, 4, objective="max_cosine").vectors
    rows = HPNHead(8, 4).weight_by_label()
    assert not torch.equal(rows, made)  # the same rows in an order of their own
    assert sorted(rows.tolist()) == sorted(made.tolist())
    assert not torch.equal(HPNHead(8, 4, seed=1).weight_by_label(), rows)


def test_semantic_prototypes_keep_the_order_of_the_words() -> None:
    # Three groups of four words; in three dimensions there is room for the groups, not for everything.
    centres = unit_rows(3, 50)
    near = centres.repeat_interleave(4, 0) + 0.05 * torch.randn(12, 50)
    w = semantic_prototypes(near, 3)
    assert w.dtype == torch.float32 and torch.equal(semantic_prototypes(near, 3), w)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(12))
    group = torch.arange(12) // 4
    same = (group[:, None] == group) & ~torch.eye(12, dtype=torch.bool)
    cosines = w @ w.T
    assert cosines[same].mean() > 0.15 > -0.15 > cosines[group[:, None] != group].mean()
    nearest = (cosines - 3 * torch.eye(12)).amax(1).mean()
    assert (
        nearest < 0.46
    )  # the icosahedron, 12 points as far apart as can be, has 0.447; groups of words have about 0.9
    assert torch.equal(HPNHead(12, 3, word_vectors=near).weight_by_label(), w)
    assert semantic_prototypes(near[:2], 2).prod(1).isfinite().all()  # two classes make no triplet


def test_trained_prototypes() -> None:
    softmax = SoftmaxHead(20, 3)
    head = TrainedPrototypesHead(20, 3, weights=5 * softmax.weight_by_label())
    torch.testing.assert_close(head.prototypes, F.normalize(softmax.weight, dim=1).detach())
    assert torch.equal(head.assignment, torch.arange(20)) and not list(head.parameters())
    head(head.prototypes[torch.randperm(20)], torch.arange(20))
    assert head.reassign().changed  # it is renewed as ours is


def test_chunked_cross_entropy_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight = torch.randn(70, 4), torch.randint(0, 30, (70,)), torch.rand(70)
    if not hasattr(F, "linear_cross_entropy"):
        with pytest.raises(ValueError, match="update torch"):
            SoftmaxHead(30, 4, chunked=True)
        return
    whole, pieces = SoftmaxHead(30, 4), SoftmaxHead(30, 4, chunked=True)
    pieces.load_state_dict(whole.state_dict())
    outcomes = []
    for head in (whole, pieces):
        leaf = x.clone().requires_grad_()
        loss = head(leaf, y, weight)
        outcomes.append([loss.detach(), *torch.autograd.grad(loss, [leaf, *head.parameters()])])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    monkeypatch.delattr(F, "linear_cross_entropy")
    with pytest.raises(ValueError, match="update torch"):
        SoftmaxHead(30, 4, chunked=True)
