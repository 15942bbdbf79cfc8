"""What a training step does beside the loss: mixup, class weights, the optimiser, the scale of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import PrototypeHead
from fastproto.models import build_backbone
from fastproto.training import OptimConfig, fit
from fastproto.training.class_weights import ClassWeights, in_batch, inverse_frequency
from fastproto.training.classifier import Classifier, learning_rate_factor, optimizer_of
from fastproto.training.mixing import mix

from .helpers import column, quick, rows, state, trained_and_resumed


def test_a_batch_is_mixed_in_pairs_with_one_share() -> None:
    pixels, labels = torch.rand(7, 3, 4, 4), torch.arange(7)
    blended, mixed = mix(pixels, labels, 1.0)
    assert 0 <= mixed.share <= 1 and sorted(mixed.order.tolist()) == labels.tolist()
    torch.testing.assert_close(blended, mixed.share * pixels + (1 - mixed.share) * pixels[mixed.order])
    torch.manual_seed(0)
    again = mix(pixels, labels, 1.0)
    torch.manual_seed(0)
    assert torch.equal(mix(pixels, labels, 1.0)[0], again[0])


@pytest.mark.parametrize("b", [0.1, 1.0, 8.0])
def test_shares_follow_the_beta_distribution(b: float) -> None:
    shares = torch.tensor([mix(torch.zeros(1, 1), torch.zeros(1), b)[1].share for _ in range(4000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * b + 1)), rel=0.1)


def test_weights_in_a_batch() -> None:
    labels = torch.tensor([4, 0, 4, 4, 7, 0])
    weights = in_batch(labels, labels)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 1, 2 / 3, 2 / 3, 2, 1]))  # 6 samples, 3 classes
    parts = [in_batch(part, labels) for part in labels.split(4)]  # two ranks
    torch.testing.assert_close(torch.cat(parts), weights)
    assert in_batch(labels[:0], labels[:0]).shape == (0,)


def test_weights_of_inverse_frequency() -> None:
    counts = torch.tensor([60, 30, 10, 0])
    weights = inverse_frequency(counts)
    torch.testing.assert_close(weights, torch.tensor([100 / 240, 100 / 120, 100 / 40, 0]))
    labels = torch.tensor([2, 0, 1])
    kept = ClassWeights(OptimConfig(class_weights="inverse_frequency", weights_from_epoch=3), counts)
    assert kept.of(labels, epoch=2) is None
    torch.testing.assert_close(kept.of(labels, epoch=3), weights[labels])
    assert ClassWeights(OptimConfig(), counts).of(labels, epoch=9) is None


class Watched(PrototypeHead):
    """Remembers what it was given."""

    def forward(self, *args: Any, **options: Any) -> Tensor:
        self.given = args, options
        return super().forward(*args, **options)


def test_a_mixed_and_weighted_step_weighs_each_label_by_its_own_class(tmp_path: Path) -> None:
    config = quick(tmp_path, optim__mixup=1.0, optim__class_weights="inverse_frequency")
    counts = torch.arange(1, 11) * 10
    module = Classifier(config, tuple("0123456789"), None, None, ClassWeights(config.optim, counts))  # type: ignore[arg-type]
    module.head = Watched(10, 4)
    features, labels = torch.randn(6, 4), torch.tensor([0, 9, 3, 3, 5, 1])
    _, mixed = mix(torch.zeros(6, 1), labels, 1.0)
    module._loss(features, labels, mixed)
    (_, first, weight), options = module.head.given
    assert torch.equal(first, labels) and torch.equal(options["labels2"], labels[mixed.order])
    by_class = inverse_frequency(counts)
    assert torch.equal(weight, by_class[labels]) and torch.equal(options["weight2"], by_class[options["labels2"]])
    assert options["lam"] == mixed.share


def test_a_mixed_and_weighted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> None:
    weights = {"optim__class_weights": "in_batch", "optim__weights_from_epoch": 1}
    sgd = {"optim__name": "sgd", "optim__lr": 0.2, "optim__momentum": 0.8, "optim__nesterov": False}
    whole = trained_and_resumed(tmp_path, monkeypatch, optim__mixup=0.4, model__batchnorm=True, **weights, **sgd)
    fit(quick(tmp_path / "plain", model__batchnorm=True, **sgd))
    assert "backbone.norm.weight" in state(whole)
    assert column(whole, "train/loss") != column(tmp_path / "plain", "train/loss")
    assert column(whole, "test/accuracy_top1")[0] > 0.5


def test_momentum_is_that_of_the_settings_after_a_resume(tmp_path: Path, no_pictures: None) -> None:
    sgd = {"optim__name": "sgd", "optim__schedule": "constant", "optim__warmup_epochs": 0.0}
    fit(quick(tmp_path / "run", **sgd))
    options = {**sgd, "optim__epochs": 3, "resume": str(tmp_path / "run")}
    for name, more in {"same": {}, "other": {"optim__momentum": 0.5}, "plain": {"optim__nesterov": False}}.items():
        fit(quick(tmp_path / name, **options, **more))
    losses = [column(tmp_path / name, "train/loss")[-1] for name in ("same", "other", "plain")]
    assert len(set(losses)) == 3
    assert rows(tmp_path / "same")[:2] == rows(tmp_path / "run")[:2]


def test_the_rate_falls_at_parts_and_at_epochs() -> None:
    parts = OptimConfig(schedule="step", epochs=250, warmup_epochs=0, milestones=[0.4, 0.8])
    epochs = OptimConfig(schedule="step", epochs=250, warmup_epochs=0, milestones=[100, 200])
    for optim in (parts, epochs):
        factors = [learning_rate_factor(optim, step, 250 * 7) for step in range(250 * 7)]
        assert factors == pytest.approx([1.0] * 700 + [0.1] * 700 + [0.01] * 350)
    late = OptimConfig(schedule="step", epochs=200, warmup_epochs=5, milestones=[160, 180])
    factors = [learning_rate_factor(late, step, 600) for step in range(600)]
    assert factors[14] < factors[15] == 1 and factors[479] == 1
    assert factors[480:] == pytest.approx([0.1] * 60 + [0.01] * 60)


def steps(loss: str, reduction: str, lr: float, weight_decay: float, nesterov: bool) -> list[Tensor]:
    """The weights of an MLP after ten steps on batches of 16."""
    torch.manual_seed(0)
    backbone = build_backbone("mlp", channels=1, image_size=8, dim=5)
    head = PrototypeHead(10, 5, loss=loss, reduction=reduction)  # type: ignore[arg-type]
    config = OptimConfig(name="sgd", lr=lr, weight_decay=weight_decay, nesterov=nesterov)
    optimizer = optimizer_of(config, backbone.parameters())
    for _ in range(10):
        images, labels = torch.rand(16, 1, 8, 8), torch.randint(0, 10, (16,))
        optimizer.zero_grad()
        head(backbone(images), labels).backward()
        optimizer.step()
    return [parameter.detach() for parameter in backbone.parameters()]


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_mean_of_eq6_takes_the_same_steps_at_2b_times_the_rate(nesterov: bool) -> None:
    """The sum of (1 - cos)² is 2B times the mean of Eq. 6; coupled weight decay must be divided by as much."""
    scale = 2 * 16
    theirs = steps("official", "sum", 0.01, 1e-2, nesterov)
    ours = steps("eq6", "mean", 0.01 * scale, 1e-2 / scale, nesterov)
    unscaled = steps("eq6", "mean", 0.01 * scale, 1e-2, nesterov)
    for one, two in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-4, atol=2e-5)
    assert any(not torch.allclose(one, two, rtol=2e-4, atol=2e-5) for one, two in zip(theirs, unscaled, strict=True))
