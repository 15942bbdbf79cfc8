"""The reference against numbers worked by hand, and its closed-form gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from fastproto import reference

DOUBLE = torch.float64


def unit_rows(rows: int, dim: int) -> torch.Tensor:
    return reference.normalise(torch.randn(rows, dim, dtype=DOUBLE))


def test_normalise() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-13, 0.0], [0.0, -2.0]], dtype=DOUBLE)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, -1.0]], dtype=DOUBLE)
    torch.testing.assert_close(reference.normalise(x), expected)


def test_gaussian_potential_of_a_square() -> None:
    # From (1, 0): two neighbours at distance² 2, one opposite at distance² 4.
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=DOUBLE)
    potential, pull = reference.gaussian_potential(square[:1], square, 2.0, self_index=torch.tensor([0]))
    assert potential.item() == pytest.approx(2 * math.exp(-4) + math.exp(-8))
    torch.testing.assert_close(pull, torch.tensor([[-math.exp(-8), 0.0]], dtype=DOUBLE))
    with_self = reference.gaussian_potential(square[:1], square, 2.0)[0]
    assert with_self.item() == pytest.approx(1 + 2 * math.exp(-4) + math.exp(-8))
    weights = torch.tensor([0.0, 3.0, 0.0, 0.0], dtype=DOUBLE)
    assert reference.gaussian_potential(square[:1], square, 2.0, weights=weights)[0].item() == pytest.approx(
        3 * math.exp(-4)
    )


def test_uniformity_loss_of_a_square() -> None:
    square = torch.tensor([[2.0, 0], [0, 1], [-3, 0], [0, -1]], dtype=DOUBLE)  # lengths do not count
    mean = (2 * math.exp(-4) + math.exp(-8)) / 3
    assert reference.uniformity_loss(square).item() == pytest.approx(math.log(mean))
    assert reference.uniformity_loss(square, form="eq5").item() == pytest.approx(math.log(1 + 3 * mean))
    lopsided = torch.tensor([[1.0, 0], [0, 1], [-1, 0]], dtype=DOUBLE)
    assert reference.uniformity_loss(lopsided, subset=torch.tensor([0])).item() == pytest.approx(
        math.log((math.exp(-4) + math.exp(-8)) / 2)
    )


def test_uniformity_loss_is_the_published_one() -> None:
    w = unit_rows(9, 4)
    expected = torch.pdist(w).square().mul(-2).exp().mean().log()
    torch.testing.assert_close(reference.uniformity_loss(w), expected)


def test_ipm_loss_by_hand() -> None:
    # The sample at 60° from its prototype: ½ (cos 60° - 1)² = 1/8; the labels are crossed over by A.
    x = torch.tensor([[math.cos(math.pi / 3), math.sin(math.pi / 3)], [0.0, 0.0]], dtype=DOUBLE) * 5
    prototypes = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=DOUBLE)
    loss = reference.ipm_loss(x, torch.tensor([0, 0]), prototypes, torch.tensor([1, 0]))
    torch.testing.assert_close(loss, torch.tensor([0.125, 0.5], dtype=DOUBLE))
    weighted = reference.ipm_loss(
        x, torch.tensor([0, 0]), prototypes, torch.tensor([1, 0]), weight=torch.tensor([2.0, 0.5], dtype=DOUBLE)
    )
    torch.testing.assert_close(weighted, torch.tensor([0.25, 0.25], dtype=DOUBLE))


def test_ipm_gradient_is_the_derivative() -> None:
    x = torch.randn(7, 5, dtype=DOUBLE, requires_grad=True)
    labels, prototypes, assignment = torch.randint(0, 6, (7,)), unit_rows(6, 5), torch.randperm(6)
    assert gradcheck(lambda x: reference.ipm_loss(x, labels, prototypes, assignment), x)
    (gradient,) = torch.autograd.grad(reference.ipm_loss(x, labels, prototypes, assignment).sum(), x)
    torch.testing.assert_close(reference.ipm_gradient(x.detach(), labels, prototypes, assignment), gradient)


def test_ipm_gradient_by_hand() -> None:
    # x = (2, 0), w = (0, 1): cos 0, so dL/dx = (0 - 1)(w - 0) / 2.
    gradient = reference.ipm_gradient(
        torch.tensor([[2.0, 0.0]], dtype=DOUBLE),
        torch.tensor([0]),
        torch.tensor([[0.0, 1.0]], dtype=DOUBLE),
        torch.tensor([0]),
    )
    torch.testing.assert_close(gradient, torch.tensor([[0.0, -0.5]], dtype=DOUBLE))


def test_uniformity_loss_gradcheck() -> None:
    w = torch.randn(6, 3, dtype=DOUBLE, requires_grad=True)
    assert gradcheck(lambda w: reference.uniformity_loss(w, 3.0), w)
    assert gradcheck(lambda w: reference.uniformity_loss(w, subset=torch.tensor([4, 1]), form="eq5"), w)


def test_class_means_by_hand() -> None:
    # Class 1 twice in one batch, in order: 0.5·(0.5·0 + 0.5·(1,0)) + 0.5·(0,1) = (0.25, 0.5). Class 0 stays.
    means = torch.tensor([[0.3, 0.3], [0.0, 0.0]], dtype=DOUBLE)
    features = torch.tensor([[7.0, 0.0], [0.0, 2.0]], dtype=DOUBLE)
    updated = reference.update_class_means(means, features, torch.tensor([1, 1]), 0.5)
    torch.testing.assert_close(updated, torch.tensor([[0.3, 0.3], [0.25, 0.5]], dtype=DOUBLE))
    assert means[1].eq(0).all()


def test_assignment_by_hand() -> None:
    # Greedy would take 0.9 + 0.1; the best is 0.8 + 0.7. Prices (0.2, 0): 0.7 + 0.8 on one side and the other.
    scores = torch.tensor([[0.9, 0.8], [0.7, 0.1]], dtype=DOUBLE)
    best = reference.best_assignment(scores)
    assert best.tolist() == [1, 0]
    assert reference.objective(scores, best).item() == pytest.approx(1.5)
    prices = torch.tensor([0.2, 0.0], dtype=DOUBLE)
    assert reference.duality_gap(scores, best, prices).item() == pytest.approx(0.0)
    assert reference.duality_gap(scores, torch.tensor([0, 1]), prices).item() == pytest.approx(0.5)
    assert reference.duality_gap(scores, best, torch.zeros(2, dtype=DOUBLE)).item() == pytest.approx(0.1)


def test_scores_of_an_unseen_class_are_zero() -> None:
    q = torch.tensor([[0.0, 0.0], [0.0, 5.0]], dtype=DOUBLE)
    scores = reference.scores(q, torch.eye(2, dtype=DOUBLE))
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=DOUBLE))


def test_best_rotation_undoes_a_turn() -> None:
    prototypes, assignment = unit_rows(8, 3), torch.randperm(8)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE))[0]
    class_means = 2.5 * (prototypes @ turn)[assignment]
    rotation = reference.best_rotation(class_means, prototypes, assignment)
    torch.testing.assert_close(rotation, turn)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=DOUBLE))


def test_predict_inverts_the_assignment() -> None:
    prototypes = torch.eye(3, dtype=DOUBLE)
    assignment = torch.tensor([2, 0, 1])  # label 0 is represented by row 2
    features = torch.tensor([[0.1, 0.2, 3.0], [1.0, 0.0, 0.5]], dtype=DOUBLE)
    assert reference.predict(features, prototypes, assignment).tolist() == [0, 1]
