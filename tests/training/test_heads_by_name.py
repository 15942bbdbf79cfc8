"""Every head through the trainer, by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fastproto.baselines as baselines
from fastproto import PrototypeHead
from fastproto.ops.loss_forms import LossForm
from fastproto.training import TrainConfig, fit
from fastproto.training.classifier import load_classifier
from fastproto.training.heads import HEADS, HeadName

Head = PrototypeHead | baselines.CosineHead


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three kinds, 8 pixels wide: a bright spot in one of three corners."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("toy")
    random = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 8)):
        for label, (row, column) in enumerate([(0, 0), (0, 5), (5, 0)]):
            (folder / part / f"kind {label}").mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
                pixels[row : row + 3, column : column + 3] += 180
                Image.fromarray(pixels).save(folder / part / f"kind {label}" / f"{index}.png")
    (folder / "words.txt").write_text("kind 0\t1 0 0 1\nkind 1\t0.9 0.1 0 1\nkind 2\t0 0 1 -1\n")
    return folder


def settings(toy: Path, out: Path, head: str, **options: Any) -> TrainConfig:
    config = TrainConfig(out=str(out), progress=False, accelerator="cpu")
    config.data.name, config.data.root, config.data.image_size, config.data.augment = (
        "image-folder",
        str(toy),
        8,
        "none",
    )
    config.data.batch_size, config.model.name, config.optim.epochs = 16, "mlp", 3
    config.head.name, config.head.dim = head, 2
    for key, value in options.items():
        setattr(config.head, key, value)
    return config


def train(toy: Path, out: Path, head: str, **options: Any) -> Head:
    result = fit(settings(toy, out, head, **options))
    assert result.test_accuracy > 0.6  # chance is 0.33
    found: Head = load_classifier(result.checkpoint).head
    return found


KINDS = {
    "prototype": PrototypeHead,
    "fixed": baselines.FixedHead,
    "softmax": baselines.SoftmaxHead,
    "softmax_uniform": baselines.SoftmaxUniformHead,
    "linear": baselines.LinearHead,
    "fixed_softmax": baselines.FixedSoftmaxHead,
    "etf": baselines.ETFHead,
    "hpn": baselines.HPNHead,
    "trained": baselines.TrainedPrototypesHead,
}


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("prototype", "fixed", "trained")])
def test_trained_by_name(name: str, toy: Path, tmp_path: Path) -> None:
    options = {"words": str(toy / "words.txt")} if name == "hpn" else {}
    assert type(train(toy, tmp_path / "run", name, **options)) is KINDS[name]


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("prototype", {"loss": "power", "power": 0.5, "scale": 8.0}, LossForm(power=0.5)),
        ("fixed", {"loss": "softmax"}, LossForm(scale=16.0)),
        ("prototype", {"loss": "softmax", "scale": "norm"}, LossForm(scale="norm")),
    ],
)
def test_losses_of_the_prototype_head(
    name: str, options: dict[str, Any], form: LossForm, toy: Path, tmp_path: Path
) -> None:
    head = train(toy, tmp_path / "run", name, **options)
    assert type(head) is KINDS[name] and head.form == form  # type: ignore[union-attr]


def test_ours_on_what_a_softmax_run_has_learned(toy: Path, tmp_path: Path) -> None:
    softmax = train(toy, tmp_path / "softmax", "softmax")
    head = train(toy, tmp_path / "ours", "trained", trained=str(tmp_path / "softmax"))
    assert type(head) is baselines.TrainedPrototypesHead
    torch.testing.assert_close(head.prototypes, F.normalize(softmax.weight_by_label(), dim=1).detach())
    assert "assignment/changed" in (tmp_path / "ours" / "metrics.csv").read_text()
    with pytest.raises(ValueError, match="3 classes in 2 dimensions; expected the same 3 classes"):
        fit(settings(toy, tmp_path / "wide", "trained", trained=str(tmp_path / "softmax"), dim=4))
    with pytest.raises(ValueError, match="a run with head trained; expected one whose rows were learned"):
        fit(settings(toy, tmp_path / "twice", "trained", trained=str(tmp_path / "ours")))
    assert not (tmp_path / "wide").exists() and not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("etf", {"prototypes": "w.npz"}, "head.prototypes is 'w.npz'; expected none with head etf"),
        ("prototype", {"words": "glove.txt"}, "it is for hpn"),
        ("trained", {}, "head.trained is None; expected the run folder"),
        ("softmax", {"scale": 0.0}, "head.scale is 0.0"),
        ("softmax", {"scale": "norm"}, "head.scale is 'norm'; expected a number: norm is for fixed_softmax"),
        ("prototype", {"scale": "norm"}, "head.scale is 'norm'; expected a number"),
        ("prototype", {"loss": "power", "power": "none"}, "head.power is 'none'; expected a number or auto"),
        ("prototype", {"power": 0.5, "loss": "eq6"}, "head.power is 0.5; expected none: it is for head.loss power"),
        ("linear", {"power": 0.5, "loss": "power"}, "head.power is 0.5; expected none"),
        ("prototype", {"loss": "power", "power": 0.0}, "head.power is 0.0; expected at least 0.01"),
        ("prototype", {"loss": "power", "power": 1e3}, "head.power is 1000.0; expected at most 100"),
        ("prototype", {"loss": "power", "power": float("nan")}, "head.power is nan; expected a finite number"),
        ("softmax_uniform", {"uniformity_weight": -1.0}, "head.uniformity_weight is -1.0"),
        ("hpn", {"words": "/no/such/file.txt"}, "no file of word vectors"),
        ("trained", {"trained": "/no/such/run"}, "no run folder or checkpoint"),
    ],
)
def test_settings_that_no_run_can_use(
    head: str, options: dict[str, Any], message: str, toy: Path, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fit(settings(toy, tmp_path / "run", head, **options))
    assert not (tmp_path / "run").exists()


def test_too_many_classes_for_an_etf_are_found_before_the_run(tmp_path: Path) -> None:
    config = TrainConfig(out=str(tmp_path / "run"), progress=False, accelerator="cpu")
    config.head.name = "etf"  # 10 digits in 5 dimensions
    with pytest.raises(ValueError, match="expected dim >= 9"):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_every_head_has_a_name_in_the_trainer() -> None:
    assert set(KINDS) == set(HEADS) == set(get_args(HeadName))
    public = {name for name in baselines.__all__ if name.endswith("Head")} - {"CosineHead"}
    assert public == {kind.__name__ for kind in KINDS.values()} - {"PrototypeHead"}
    config = TrainConfig()
    config.head.name = "arcface"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="'arcface'; expected one of prototype"):
        config.check()
