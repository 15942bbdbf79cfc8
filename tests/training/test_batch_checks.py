"""Batches that cannot be trained on are found before training, and those that can are not refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from fastproto.data import DataSplits, load_data
from fastproto.models import build_backbone
from fastproto.training import TrainConfig, fit
from fastproto.training.batch_checks import check_batches


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_data("digits")


def backbone(name: str, data: DataSplits) -> nn.Module:
    read = data.preprocessing
    with torch.device("meta"):
        return build_backbone(name, channels=read.channels, image_size=read.image_size, dim=3)


def check(name: str, samples: int, batch_size: int, digits: DataSplits, devices: int = 1, held_out: int = 9) -> None:
    config = TrainConfig(devices=devices)
    config.model.name, config.data.batch_size = name, batch_size
    validation = Subset(digits.validation, range(held_out))
    data = replace(digits, train=Subset(digits.train, range(samples)), validation=validation)
    check_batches(config, data, backbone(name, digits))


@pytest.mark.parametrize(
    ("name", "samples", "batch_size", "devices", "message"),
    [
        (
            "mlp",
            65,
            64,
            1,
            "data.batch_size is 64 and 65 training samples make a last batch of one.*data.batch_size 63",
        ),
        ("cnn", 65, 64, 1, "a last batch of one"),
        ("mlp", 65, 1, 1, "batches of one.*data.batch_size 3"),
        ("mlp", 129, 64, 2, "65 training samples on each of 2 devices make a last batch of one"),
        ("mlp", 3, 8, 3, "1 training samples on each of 3 devices make one batch of one.*more samples or fewer"),
        ("mlp", 25, 1, 1, "batches of one.*data.batch_size 5"),  # 2, 3 and 4 divide 24
        ("mlp", 25, 12, 1, "a last batch of one.*data.batch_size 11"),
        ("mlp", 1, 2**31 - 1, 1, "one batch of one.*more samples or fewer"),
        ("mlp", 3, 2, 1, "a last batch of one.*data.batch_size 3"),
        ("mlp", 3, 2, 4, "3 training samples for 4 devices"),
    ],
)
def test_batches_of_one_are_refused(
    name: str, samples: int, batch_size: int, devices: int, message: str, digits: DataSplits
) -> None:
    with pytest.raises(ValueError, match=message):
        check(name, samples, batch_size, digits, devices)


@pytest.mark.parametrize(
    ("name", "samples", "batch_size", "devices"),
    [
        ("mlp", 64, 64, 1),
        ("mlp", 66, 64, 1),
        ("mlp", 2, 64, 1),
        ("mlp", 132, 64, 2),
        ("mlp", 127, 64, 2),  # the sampler evens the shares out: 64 and 64
        ("resnet20", 65, 64, 1),  # its maps have several pixels everywhere
        ("resnet20", 65, 1, 1),
    ],
)
def test_batches_that_train_are_not_refused(
    name: str, samples: int, batch_size: int, devices: int, digits: DataSplits
) -> None:
    check(name, samples, batch_size, digits, devices)


def test_what_is_refused_is_what_torch_cannot_train(digits: DataSplits) -> None:
    images = digits.train[0][0][None].float()
    for name, trains in (("mlp", False), ("cnn", False), ("resnet20", True)):
        real = build_backbone(name, channels=1, image_size=8, dim=3).train()
        if trains:
            real(images)
            check(name, 1, 1, digits)
            continue
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            real(images)
        with pytest.raises(ValueError, match="batch of one"):
            check(name, 1, 1, digits)


def test_held_out_parts_that_are_too_small(digits: DataSplits) -> None:
    with pytest.raises(ValueError, match="2 validation samples for 3 devices"):
        check("mlp", 100, 64, digits, devices=3, held_out=2)
    with pytest.raises(ValueError, match="0 validation samples for 1 devices"):
        check("mlp", 100, 64, digits, held_out=0)


def test_nothing_is_written_for_a_batch_of_one(tmp_path: Path) -> None:
    config = TrainConfig(out=str(tmp_path / "run"), progress=False, accelerator="cpu")
    config.model.name, config.data.batch_size = "mlp", 1
    with pytest.raises(ValueError, match=r"data\.batch_size is 1 and"):
        fit(config)
    assert list(tmp_path.iterdir()) == []
