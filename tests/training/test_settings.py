"""Settings that no run can use, and what is said of those that some can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastproto.cli.train_command import parse_train
from fastproto.training import TrainConfig, fit
from fastproto.training.config_files import read_config
from fastproto.training.resume import changes
from fastproto.training.run import geometry_note

from .helpers import quick


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "mnist"}, "unknown data set 'mnist'"),
        ({"model__name": "resnet21"}, "resnet"),
        ({"data__name": "image-folder", "data__root": "/no/such/folder"}, "/no/such/folder"),
        ({"head__prototypes": "/no/such/file.npz"}, "no prototype file"),
        ({"head__dim": 1}, "head.dim is 1; expected at least 2"),
        ({"optim__epochs": 0}, "optim.epochs is 0"),
        ({"precision": "16-mixed"}, "precision is 16-mixed and there is no GPU"),
        ({"optim__lr": float("nan")}, "optim.lr is nan; expected a finite number"),
        ({"head__name": "arcface"}, "one of prototype, fixed, softmax"),
        ({"head__initial_assignment": "best"}, "one of auto, random, features, aligned"),
        ({"head__initial_samples": 0}, "head.initial_samples is 0; expected at least 1"),
        ({"head__early_epochs": -1.0}, "head.early_epochs is -1.0; expected at least 0"),
        ({"head__early_renewals_per_epoch": float("nan")}, "head.early_renewals_per_epoch"),
        ({"data__name": "cifar-100"}, r"unknown data set 'cifar-100': did you mean 'cifar100'\?"),
        ({"data__imbalance": 0.0}, "data.imbalance is 0.0; expected 0 < imbalance <= 1"),
        ({"data__imbalance": 1.1}, "data.imbalance is 1.1; expected 0 < imbalance <= 1"),
        ({"data__validation": 1.0}, "data.validation is 1.0; expected 0 < validation < 1"),
        ({"data__validation": 0.1}, "'digits' got validation=0.1: leave validation out"),
        (
            {"data__augment": "flip"},
            "data.augment is 'flip'; expected one of auto, none, jitter, crop_flip, resized_crop",
        ),
        ({"data__augment": 1}, "data.augment is 1; expected a text"),
    ],
)
def test_settings_that_no_run_can_use(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fit(quick(tmp_path / "run", **changes))


@pytest.mark.parametrize(
    ("old", "new"), [(True, "auto"), (False, "none"), ("Yes", "auto"), ("off", "none"), ("jitter", "jitter")]
)
def test_augment_was_true_or_false_in_earlier_versions(old: bool | str, new: str, tmp_path: Path) -> None:
    config = TrainConfig.from_dict({"data": {"augment": old}})
    assert config.data.augment == new
    config.check()
    (tmp_path / "config.yaml").write_text(f"data:\n  augment: {str(old).lower()}\n")
    assert read_config(tmp_path / "config.yaml") == {"data.augment": str(old).lower()}
    assert parse_train(["--config", str(tmp_path / "config.yaml")]).data.augment == new
    assert parse_train(["--data.augment", str(old)]).data.augment == new
    given = TrainConfig()
    given.data.augment = old  # type: ignore[assignment]
    assert changes(config, given) == {}


@pytest.mark.parametrize(
    ("c", "d", "said"), [(6, 5, "simplex"), (7, 5, "opposite"), (10, 5, "opposite"), (11, 5, None)]
)
def test_geometry_note(c: int, d: int, said: str | None) -> None:
    note = geometry_note(c, d)
    assert note is None if said is None else said in (note or "")


def test_unknown_configuration_keys() -> None:
    with pytest.raises(ValueError, match=r"unknown configuration key optim\.learning_rate"):
        TrainConfig.from_dict({"optim": {"learning_rate": 1.0}})
    with pytest.raises(ValueError, match=r"did you mean head\.momentum"):
        TrainConfig.from_dict({"head": {"momentun": 0.5}})
    with pytest.raises(ValueError, match="expected a group"):
        TrainConfig.from_dict({"head": 3})


@pytest.mark.parametrize("given", ["digits", None, 3])
def test_a_group_of_settings_is_an_object(given: object) -> None:
    with pytest.raises(ValueError, match=rf"^data is {given!r}; expected DataConfig$"):
        TrainConfig(data=given).check()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown configuration key 5"):
        TrainConfig.from_dict({5: 1})  # type: ignore[dict-item]
