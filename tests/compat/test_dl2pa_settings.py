"""The authors' configuration files as settings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fastproto.cli.train_command import parse_train
from fastproto.compat.dl2pa import read_dl2pa_config
from fastproto.training import TrainConfig

COMMON: dict[str, Any] = {
    **{"print_freq": 40, "workers": 4, "log_dir": "logs", "model_dir": "ckps", "data_path": "./data/", "gpu": None},
    **{"fixed_classifier": True, "deterministic": False, "distributed": False, "world_size": -1, "rank": -1},
    **{"dist_url": "tcp://host:1", "dist_backend": "nccl", "multiprocessing_distributed": False, "momentum": 0.9},
}
BALANCED = {
    **{"name": "Res32", "dataset": "cifar100", "num_classes": 100, "backbone": "ResNet", "space_dim": 50},
    **{"lr": 0.01, "batch_size": 128, "weight_decay": 0.0001, "num_epochs": 250, "drop1": 100, "drop2": 200},
}
LONG_TAIL = {
    **{"name": "LT", "dataset": "cifar10LT", "num_classes": 10, "backbone": "resnet32_fe", "space_dim": 64},
    **{"imb_factor": 0.01, "head_class_idx": [0, 3], "med_class_idx": [3, 7], "tail_class_idx": [7, 10], "alpha": 0.5},
    **{"lr": 0.1, "batch_size": 128, "weight_decay": 2e-4, "num_epochs": 200, "drop1": 5, "drop2": 160, "drop3": 180},
}
IMAGENET = {
    **{"name": "Swin", "dataset": "imagenet", "num_classes": 1000, "backbone": "swin_tiny_patch4_window7_224"},
    **{"space_dim": 512, "crop_size": 224, "resize_size": 256, "lr": 0.5, "warmup_epochs": 5, "lr_warmup_decay": 0.01},
    **{"batch_size": 1024, "weight_decay": 2e-5, "num_epochs": 105, "drop1": 100, "drop2": 200},
}


def config(tmp_path: Path, given: dict[str, Any], *options: str) -> TrainConfig:
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(COMMON | given), encoding="utf-8")
    return parse_train(["--dl2pa-config", str(file), *options])


def test_a_balanced_run(tmp_path: Path) -> None:
    """The settings of our recipe of the same experiment, but for the class means and what their file says."""
    found, recipe = config(tmp_path, BALANCED), parse_train(["--recipe", "cifar100-d50"])
    assert (found.data.root, found.data.workers, found.name, found.deterministic) == ("./data/", 4, "Res32", False)
    assert (found.head.means, found.optim.milestones) == ("official", [100, 200])
    assert found.data.num_classes == 100  # with a recipe it is no setting
    found.data.num_classes, found.data.root, found.data.workers = None, None, 0
    found.name, found.deterministic = None, True
    found.head.means, found.optim.milestones, found.data.augment = "ema", [0.4, 0.8], "crop_flip"
    assert found == recipe


def test_a_run_on_a_long_tail(tmp_path: Path) -> None:
    found = config(tmp_path, LONG_TAIL)
    assert (found.data.name, found.data.imbalance, found.data.num_classes) == ("cifar10", 0.01, 10)
    assert (found.model.name, found.model.batchnorm, found.head.dim) == ("resnet32", True, 64)
    assert (found.head.loss, found.head.reduction, found.optim.class_weights) == ("eq6", "mean", "in_batch")
    assert (found.optim.warmup_epochs, found.optim.schedule, found.optim.milestones) == (5, "step", [160, 180])
    assert (found.optim.mixup, found.optim.weight_decay, found.optim.nesterov) == (0.5, 2e-4, False)


def test_a_run_on_imagenet(tmp_path: Path) -> None:
    found = config(tmp_path, IMAGENET)
    assert (found.data.name, found.data.image_size, found.model.name) == ("imagenet", 224, "swin_t")
    assert (found.optim.name, found.optim.lr, found.optim.schedule) == ("adamw", 0.5, "cosine")
    assert (found.optim.epochs, found.optim.warmup_epochs, found.optim.mixup) == (105, 5, 1)
    assert (found.head.loss, found.head.reduction) == ("eq6", "mean")


def test_a_learnable_classifier_and_a_short_run(tmp_path: Path) -> None:
    changes = {"fixed_classifier": False, "centroid_path": "w.pth", "num_epochs": 50}
    found = config(tmp_path, BALANCED | changes)
    assert (found.head.name, found.head.reduction, found.head.prototypes) == ("softmax", "mean", None)
    assert found.optim.schedule == "constant"
    assert config(tmp_path, BALANCED | {"centroid_path": "w.pth"}).head.prototypes == "w.pth"


@pytest.mark.parametrize("given", [BALANCED, LONG_TAIL, IMAGENET])
def test_without_drops_the_rate_does_not_fall_and_nothing_warms_up(given: dict[str, Any], tmp_path: Path) -> None:
    """The defaults of their code are -1, which is never."""
    without = {key: value for key, value in given.items() if not key.startswith(("drop", "warmup"))}
    found = config(tmp_path, without).optim
    assert found.schedule == ("cosine" if given is IMAGENET else "constant") and found.warmup_epochs == 0
    explicit = dict.fromkeys(("drop1", "drop2", "drop3", "warmup_epochs"), -1)
    assert config(tmp_path, without | explicit).optim == found


def test_what_is_null_or_minus_one_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    none = {"name": None, "centroid_path": None, "data_path": None, "crop_size": -1}
    found = config(tmp_path, IMAGENET | none)
    assert (found.name, found.head.prototypes, found.data.root, found.data.image_size) == (None, None, None, None)
    (tmp_path / "tilde.yaml").write_text("dataset: cifar100\ncentroid_path: ~\nname: '~'\n", encoding="utf-8")
    read = read_dl2pa_config(tmp_path / "tilde.yaml")
    assert "head.prototypes" not in read and read["name"] == "~"


def test_options_and_files_override_it(tmp_path: Path) -> None:
    own = tmp_path / "ours.yaml"
    own.write_text("head: { dim: 7 }\noptim: { lr: 0.5 }\n", encoding="utf-8")
    found = config(tmp_path, BALANCED, "--config", str(own), "--optim.lr", "0.25")
    assert (found.head.dim, found.optim.lr, found.optim.epochs) == (7, 0.25, 250)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space_dims": 3}, "'space_dims' is no key of the authors' configuration files; did you mean space_dim?"),
        ({"wholly_else": 3}, "'wholly_else' is no key of the authors' configuration files; leave it out"),
        ({"lr": "quick"}, "lr is 'quick'; expected a number"),
        ({"num_classes": [1, 2]}, "num_classes is a list or a mapping; expected a whole number"),
        ({"name": [1, 2]}, "name is a list or a mapping; expected a text"),
        ({"fixed_classifier": [True]}, "fixed_classifier is a list or a mapping; expected True or False"),
        ({"lr": {"start": 1}}, "lr is a list or a mapping; expected a number"),
        ({"lr": None}, "lr is 'null'; expected a number"),
        ({"fixed_classifier": "perhaps"}, "fixed_classifier is 'perhaps'; expected True or False"),
        ({"dataset": "mnist"}, "dataset is 'mnist'; expected one of cifar100, imagenet200, imagenet, cifar10LT"),
        ({"backbone": "vgg"}, "backbone is 'vgg'; expected one of ResNet, resnet32_fe"),
        ({"reg_lam": 0.1}, "reg_lam is 0.1; expected 0"),
    ],
)
def test_files_that_are_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        config(tmp_path, BALANCED | given)
    assert message in str(caught.value) and str(caught.value).startswith(str(tmp_path))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        read_dl2pa_config(tmp_path / "none.yaml")
    for text, line in (("lr: 0.1\ngpu: 0\nlr: 0.2\n", 3), ("{lr: 0.1, lr: 0.2}", 1)):
        (tmp_path / "twice.yaml").write_text(text)
        with pytest.raises(ValueError, match=f"line {line}: lr is repeated, first in line 1; expected each key once"):
            read_dl2pa_config(tmp_path / "twice.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ValueError, match="is empty; expected settings such as 'dataset: 'cifar100''"):
        read_dl2pa_config(tmp_path / "empty.yaml")
