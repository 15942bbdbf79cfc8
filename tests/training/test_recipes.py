"""The recipes of the package: known settings, their precedence, and that each of them trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from fastproto.cli import train
from fastproto.cli.train_command import parse_train
from fastproto.training import fit
from fastproto.training.parse_settings import OPTIONS, flatten
from fastproto.training.recipes import FOLDER, recipe_names

from .helpers import column, state

NAMES = recipe_names()
SMALL = ["cifar100-d10", "cifar100-d25", "cifar100-d50", "cifar100-d100"]
SMALL += ["imagenet200-d25", "imagenet200-d50", "imagenet200-d100", "imagenet200-d200"]
TAILS = ["cifar10-lt-0.01-d64", "cifar100-lt-0.01-d50", "cifar100-lt-0.01-d128", "imagenet-lt-r50-d512"]


def content(name: str) -> dict[str, Any]:
    read: dict[str, Any] = flatten(yaml.load((FOLDER / f"{name}.yaml").read_text(), yaml.BaseLoader))
    return read


def test_names_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(NAMES) == sorted([*SMALL, *TAILS, "imagenet-r50-d512", "imagenet-swin-t-d512"])
    with pytest.raises(SystemExit) as done:
        train(["--recipe", "list"])
    assert done.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 2 and f"D = {content(line.split()[0])['head.dim']}" in line for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_says(name: str) -> None:
    read = content(name)
    assert read["head.dim"] == name.rpartition("-d")[2]
    assert read["data.name"] == (
        "-".join(name.split("-")[:2]) if name.startswith("imagenet-lt") else name.split("-")[0]
    )
    assert read["head.initial_assignment"] == "random"  # the paper's
    assert set(read) <= OPTIONS.keys()
    if name in SMALL:
        expected = {"head.loss": "official", "head.reduction": "sum", "optim.lr": "0.01", "optim.weight_decay": "1e-4"}
        assert expected.items() <= read.items() and read["data.batch_size"] == "128"
        assert [float(m) * 250 for m in read["optim.milestones"]] == [100, 200] and read["optim.epochs"] == "250"
    if name in TAILS:
        assert read["optim.class_weights"] == "inverse_frequency" and read["model.batchnorm"] == "true"
        epochs = [5 + 195 * float(m) for m in read["optim.milestones"]]
        assert epochs == pytest.approx([160, 180], abs=1e-3) and float(read["optim.mixup"]) == 1


def test_options_override_files_override_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("optim: {lr: 0.5, epochs: 7}\n")
    config = parse_train(["--optim.epochs", "3", "--recipe", "cifar100-d10", "--config", str(file)])
    assert (config.optim.lr, config.optim.epochs, config.optim.weight_decay) == (0.5, 3, 1e-4)
    assert (config.head.dim, config.head.loss, config.data.name) == (10, "official", "cifar100")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder: three classes of 4 and 2 pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in (("red", (250, 20, 10)), ("green", (10, 240, 30)), ("blue", (0, 30, 255))):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (16, 16), colour).save(root / part / name / f"{number}.png")
    return root


def tiny(name: str, pictures: Path, out: Path) -> list[str]:
    """A recipe on those pictures: its optimiser, loss, mixup and weights, with an MLP for an epoch."""
    options = ["--data", "image-folder", "--data.root", str(pictures), "--data.image_size", "16", "--data.workers", "0"]
    options += ["--data.batch_size", "3", "--model", "mlp", "--head.dim", "8", "--optim.epochs", "1"]
    options += ["--accelerator", "cpu", "--progress", "false", "--out", str(out)]
    return ["--recipe", name, *options]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains(name: str, pictures: Path, tmp_path: Path, no_pictures: None) -> None:
    config = parse_train([*tiny(name, pictures, tmp_path / "run"), "--data.num_classes", "3"])
    fit(config)
    assert column(tmp_path / "run", "train/loss")[0] > 0
    steps = 2 if "data.imbalance" in content(name) else 3  # 5 training pictures, or 9
    assert int(state(tmp_path / "run")["head.updates"]) == steps


def test_other_classes_than_the_recipe_is_for(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny("cifar100-d10", pictures, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "the recipe is for 100 classes and image-folder has 3" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
