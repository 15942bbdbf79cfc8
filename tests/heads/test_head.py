"""PrototypeHead: Algorithm 1 on one process, its state, its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastproto import PrototypeHead, estimate_prototypes, ipm_loss, reference, update_class_means

from ..helpers import unit_rows


def make(c: int = 12, d: int = 4, **options: Any) -> PrototypeHead:
    return PrototypeHead(c, d, **({"prototypes": unit_rows(c, d)} | options))


def test_forward_is_the_loss_and_moves_the_means() -> None:
    head = make()
    x, y = torch.randn(8, 4, requires_grad=True), torch.randint(0, 12, (8,))
    loss = head(x, y)
    torch.testing.assert_close(loss, ipm_loss(x, y, head.prototypes, head.assignment))
    expected = reference.update_class_means(torch.zeros(12, 4), x.detach(), y, 0.9)
    torch.testing.assert_close(head.class_means, expected)
    assert int(head.updates) == 1
    means = head.class_means.clone()
    loss.backward()
    head.eval()(x, y)
    head.train()(x, y, update_means=False)
    assert torch.equal(head.class_means, means) and int(head.updates) == 1
    assert not list(head.parameters())


def test_a_checkpointed_forward_counts_once() -> None:
    head = make()
    x, y = torch.randn(8, 4, requires_grad=True), torch.randint(0, 12, (8,))
    checkpoint(head, x, y, use_reentrant=False).backward()
    assert int(head.updates) == 1
    checkpoint(head, x, y, use_reentrant=True).backward()
    assert int(head.updates) == 2


def test_weights_and_reductions() -> None:
    x, y, weight = torch.randn(6, 4), torch.randint(0, 12, (6,)), torch.rand(6)
    w = unit_rows(12, 4)
    per_sample = PrototypeHead(12, 4, prototypes=w, reduction="none")(x, y, weight)
    assert per_sample.shape == (6,)
    torch.testing.assert_close(PrototypeHead(12, 4, prototypes=w, reduction="sum")(x, y, weight), per_sample.sum())
    torch.testing.assert_close(PrototypeHead(12, 4, prototypes=w)(x, y, weight), per_sample.sum() / 6)


def test_official_variant() -> None:
    head = make(loss="official", means="official")
    torch.testing.assert_close(head.class_means.norm(dim=1), torch.ones(12))
    before = head.class_means.clone()
    x, y = torch.randn(3, 4), torch.tensor([5, 5, 2])
    loss = head(x, y)
    cosines = (reference.normalise(x) * head.prototypes[head.assignment[y]]).sum(1)
    torch.testing.assert_close(loss, (1 - cosines).square().mean())
    torch.testing.assert_close(head.class_means, reference.update_official_means(before, x, y))
    z = reference.normalise(x)  # of two samples of class 5 the last counts
    torch.testing.assert_close(head.class_means[5], nn.functional.normalize(1.9 * before[5] + 0.1 * z[1], dim=0))


def test_reassign_follows_the_means() -> None:
    head = make()
    wanted = torch.randperm(12)
    head.class_means.copy_(head.prototypes[wanted])
    found = head.reassign()
    assert torch.equal(head.assignment, wanted) and found.certified
    assert head.reassign().changed == 0
    labels = torch.arange(12)
    assert torch.equal(head.predict(head.prototypes[wanted])[:, 0], labels)
    assert torch.equal(head.logits(head.prototypes[wanted]).argmax(1), labels)
    assert torch.equal(head.weight_by_label(), head.prototypes[wanted])


def test_predict_agrees_with_logits() -> None:
    head, x = make(), torch.randn(20, 4)
    values, labels = head.logits(x).topk(3, dim=1)
    assert torch.equal(head.predict(x, k=3), labels)
    torch.testing.assert_close(head.predict_with_cosines(x, 3)[1], values)


def test_logits_are_differentiable() -> None:
    x = torch.randn(5, 4, requires_grad=True)
    nn.functional.cross_entropy(make().logits(x), torch.arange(5)).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_align_turns_the_prototypes_but_not_their_geometry() -> None:
    head = make(20, 3)
    head.class_means.normal_()
    gram = head.prototypes @ head.prototypes.T
    before = head.reassign().objective
    found = head.align()
    torch.testing.assert_close(head.prototypes @ head.prototypes.T, gram)
    assert found.assignment.objective > before
    assert torch.equal(head.assignment, found.assignment.permutation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_give_a_float32_loss(dtype: torch.dtype) -> None:
    x = torch.randn(8, 4).to(dtype).requires_grad_()
    loss = make()(x, torch.randint(0, 12, (8,)))
    loss.backward()
    assert loss.dtype == torch.float32 and x.grad is not None and x.grad.dtype == dtype


def test_autocast() -> None:
    model, head = nn.Linear(6, 4), make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(model(torch.randn(8, 6)), torch.randint(0, 12, (8,)))
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.weight.grad is not None and model.weight.grad.dtype == torch.float32


def test_autocast_leaves_predictions_alone() -> None:
    head, x = make(200, 8), torch.randn(100, 8)
    with torch.autocast("cpu", torch.bfloat16):
        within = head.predict(x, k=3), head.logits(x)
    assert torch.equal(within[0], head.predict(x, k=3)) and torch.equal(within[1], head.logits(x))


def test_meta_device_estimates_nothing() -> None:
    with torch.device("meta"):
        PrototypeHead(20_000, 500)  # an estimate would take hours
        head = PrototypeHead(1000, 64)
    state = make(1000, 64).state_dict()
    head.load_state_dict(state, assign=True)
    assert torch.equal(head.prototypes, state["prototypes"])


def test_prototypes_of_every_kind() -> None:
    made = estimate_prototypes(10, 5)
    for given in (made, made.vectors, made.vectors.double(), None):
        assert torch.equal(PrototypeHead(10, 5, prototypes=given).prototypes, made.vectors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "at least 2"),
        ({"dim": 1}, "at least 2"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"loss": "l2"}, "'l2'"),
        ({"means": "mean"}, "'mean'"),
        ({"reduction": "max"}, "'max'"),
        ({"prototypes": unit_rows(5, 3)}, r"\[5, 3\]; expected \[12, 4\]"),
        ({"prototypes": 2 * unit_rows(12, 4)}, "norm 2"),
        ({"prototypes": torch.full((12, 4), float("nan"))}, "NaN"),
        ({"prototypes": unit_rows(12, 4).requires_grad_()}, "require grad"),
    ],
)
def test_constructor_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrototypeHead(**({"num_classes": 12, "dim": 4} | arguments))


def test_bad_batches_change_nothing() -> None:
    head = make()
    head(torch.randn(8, 4), torch.randint(0, 12, (8,)))
    state = {name: value.clone() for name, value in head.state_dict().items()}
    nan = torch.randn(3, 4)
    nan[1, 2] = float("nan")
    for x, y in (
        (torch.randn(3, 4), torch.tensor([0, 1, 12])),
        (torch.randn(3, 4), torch.tensor([0, -1, 2])),
        (torch.randn(3, 5), torch.tensor([0, 1, 2])),
        (nan, torch.tensor([0, 1, 2])),
    ):
        with pytest.raises(ValueError, match="expected"):
            head(x, y)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


def test_rows_that_are_not_finite_are_skipped_on_request() -> None:
    prototypes, assignment, means = unit_rows(12, 4), torch.randperm(12), torch.zeros(12, 4)
    for dtype in (torch.float32, torch.float64):
        x, y = torch.randn(6, 4, dtype=dtype), torch.arange(6)
        x[2, 1], x[4, 0] = float("nan"), float("inf")
        good = torch.tensor([0, 1, 3, 5])
        x.requires_grad_()
        loss = ipm_loss(x, y, prototypes, assignment, reduction="none", nan_policy="skip")
        loss.sum().backward()
        alone = x.detach()[good].requires_grad_()
        expected = ipm_loss(alone, y[good], prototypes, assignment, reduction="none")
        expected.sum().backward()
        torch.testing.assert_close(loss[good], expected)
        assert x.grad is not None and alone.grad is not None
        torch.testing.assert_close(x.grad[good], alone.grad)
        assert loss[[2, 4]].tolist() == [0, 0] and x.grad[[2, 4]].eq(0).all()
        moved = update_class_means(means, x.detach(), y, 0.9, nan_policy="skip")
        torch.testing.assert_close(moved[:6][good], update_class_means(means, alone.detach(), y[good], 0.9)[good])
        assert moved[[2, 4]].eq(0).all()
        with pytest.raises(ValueError, match="first in row 2"):
            update_class_means(means, x.detach(), y, 0.9)
