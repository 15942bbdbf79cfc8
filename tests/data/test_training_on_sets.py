"""Two steps of training on every set that is read from its published files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fastproto.data import DataSplits, collate, load_data
from fastproto.training import TrainConfig, fit
from fastproto.training.checkpoint_files import read_checkpoint
from fastproto.training.classifier import Classifier

from .set_files import (
    Pictures,
    pictures,
    write_cifar,
    write_imagenet,
    write_imagenet200,
    write_lists,
    write_stl10,
    write_svhn,
)

LABELS = [0, 1, 2] * 6
NAMES = ["ant", "bee", "cat"]


def written(name: str, root: Path, patch: pytest.MonkeyPatch) -> Path:
    size = 96 if name == "stl10" else 32
    parts = pictures(LABELS, size, 0), pictures(LABELS[:6], size, 1)
    if name.startswith("cifar"):
        return write_cifar(root, patch, name, *parts, NAMES)
    if name == "svhn":
        return write_svhn(root, patch, *parts)
    if name == "stl10":
        return write_stl10(root, patch, *parts, NAMES)
    if name == "imagenet200":
        return write_imagenet200(root)
    write_imagenet(root)
    return write_lists(root, root) if name == "imagenet-lt" else root


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "stl10", "imagenet", "imagenet200", "imagenet-lt"])
def test_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(out=str(tmp_path / "run"), progress=False, accelerator="cpu")
    config.data.name, config.data.root = name, str(written(name, tmp_path / "data", monkeypatch))
    config.data.num_classes, config.data.batch_size, config.data.image_size = 3, 8, 16
    config.model.name, config.head.dim, config.optim.epochs = "mlp", 2, 1
    config.data.batch_size = 4 if name == "imagenet-lt" else 8
    fit(config)
    content = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 2
    assert all(bool(value.isfinite().all()) for value in content["state_dict"].values())


def first_loss(data: DataSplits, augment: bool) -> Tensor:
    """Of the first batch of a run with seed 0."""
    config = TrainConfig()
    config.model.name, config.head.dim = "resnet20", 2
    torch.manual_seed(0)
    module = Classifier.for_data(config, data)
    module.configure_model()
    order = torch.randperm(len(data.train))[:8].tolist()
    images, labels = collate([data.train[index] for index in order])
    pixels = images.float() / 255
    if augment:
        assert module.augmentation is not None
        pixels = module.augmentation(pixels)
    return module.head(module.backbone(module.preprocessing.normalise(pixels)), labels)


def as_folder(root: Path, parts: dict[str, Pictures]) -> Path:
    for part, (images, labels) in parts.items():
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            file = root / part / NAMES[label] / f"{index:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return root


def test_published_files_and_a_folder_of_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same splits, pixels and first loss, augmented and not, once both are normalised alike."""
    train, test = pictures(sorted(LABELS), 32, 0), pictures([0, 1, 2], 32, 1)
    root = write_cifar(tmp_path / "published", monkeypatch, "cifar100", train, test, NAMES)
    published = load_data("cifar100", root=str(root))
    folder = load_data(
        "image-folder", root=str(as_folder(tmp_path / "folder", {"train": train, "test": test})), augment="crop_flip"
    )
    folder = dataclasses.replace(folder, preprocessing=published.preprocessing)
    assert folder.class_names == published.class_names
    for part in ("train", "validation", "test"):
        ours, theirs = getattr(published, part), getattr(folder, part)
        assert torch.equal(ours.labels, theirs.labels)
        assert all(torch.equal(ours[index][0], theirs[index][0]) for index in range(len(ours)))
    for augment in (False, True):
        assert torch.equal(first_loss(published, augment), first_loss(folder, augment))
    assert not torch.equal(first_loss(published, True), first_loss(published, False))
