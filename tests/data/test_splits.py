"""Parts of a data set, batches, the digits, and the names that load_data takes."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fastproto.data import (
    DATASETS,
    ImagesInMemory,
    collate,
    load_data,
)
from fastproto.data.splits import hold_out

from .helpers import in_memory, same


def test_hold_out_takes_the_same_part_of_every_class() -> None:
    labels = torch.arange(5).repeat_interleave(torch.tensor([2, 3, 10, 40, 100]))[torch.randperm(155)]
    kept, held = hold_out(labels, 0.25, seed=3)
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(155))
    assert torch.bincount(labels[held]).tolist() == [1, 1, 2, 10, 25]
    again = hold_out(labels, 0.25, seed=3)
    assert torch.equal(again[1], held)
    assert not torch.equal(hold_out(labels, 0.25, seed=4)[1], held)
    with pytest.raises(ValueError, match="class 1 has 1 picture"):
        hold_out(torch.tensor([0, 0, 1]), 0.5, seed=0)


def test_images_in_memory_batch_at_once_and_one_by_one() -> None:
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    data = ImagesInMemory(images, torch.arange(10))
    assert len(data) == 10
    at_once = collate(data.__getitems__([3, 1, 1]))
    one_by_one = collate([data[3], data[1], data[1]])
    for batch in (at_once, one_by_one):
        assert torch.equal(batch[0], images[[3, 1, 1]])
        assert torch.equal(batch[1], torch.tensor([3, 1, 1]))
    batches = list(DataLoader(data, batch_size=4, collate_fn=collate))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([pictures for pictures, _ in batches]), images)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), r"images are torch.float32 .* give uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"give uint8 \[N, channels"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"give int64 \[2\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), r"labels are torch.float32"),
    ],
)
def test_images_in_memory_refuse_other_types(images: Tensor, labels: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ImagesInMemory(images, labels)


def test_digits_have_stratified_disjoint_parts() -> None:
    splits = load_data("digits")
    train, validation, test = in_memory(splits)
    assert train.images.shape[1:] == (1, 8, 8)
    assert len(train) + len(validation) + len(test) == 1797
    assert abs(len(test) / 1797 - 0.25) < 0.005
    for part in (train, validation, test):
        shares = torch.bincount(part.labels, minlength=10) / len(part)
        assert float((shares - 0.1).abs().max()) < 0.02
        assert int(part.images.max()) == 255 and int(part.images.min()) == 0
    pictures = [{bytes(image.numpy().tobytes()) for image in part.images} for part in (train, validation, test)]
    assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2] and not pictures[1] & pictures[2]
    assert splits.class_names == tuple("0123456789")
    normal = splits.preprocessing.normalise(train.images.double() / 255)
    assert abs(float(normal.mean())) < 1e-4 and abs(float(normal.std()) - 1) < 1e-3


def test_digits_are_the_same_every_time() -> None:
    assert same(load_data("digits"), load_data("digits"))


def test_digits_in_another_size() -> None:
    splits = load_data("digits", image_size=12, num_classes=10)
    assert in_memory(splits)[0].images.shape[1:] == (1, 12, 12)
    assert splits.preprocessing.image_size == 12


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "glyph"}, r"unknown data set 'glyph': did you mean 'glyphs'\? Give one of digits, glyphs"),
        ({"name": "digits", "num_classes": 5}, "'digits' has 10 classes, but got num_classes=5"),
        ({"name": "digits", "root": "x"}, "'digits' got root='x'"),
        ({"name": "image-folder", "fonts": "x"}, "'image-folder' got fonts='x'"),
        (
            {"name": "digits", "lists": "x"},
            "'digits' got lists='x': leave lists out, or use the data set 'imagenet-lt'",
        ),
        ({"name": "imagenet", "download": True}, "got download=True: .* or use one of cifar10, cifar100, svhn, stl10"),
        ({"name": "svhn", "validation": 1.0}, "validation=1.0 is not between 0 and 1"),
        ({"name": "digits", "image_size": 4}, "image_size=4 is too small"),
        ({"name": "glyphs", "num_classes": 1}, "num_classes=1 is too small"),
        ({"name": "digits", "cache": True}, "cache=True is unknown: give one of auto, true, false"),
    ],
)
def test_bad_arguments_say_what_to_do(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_data(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("digits", "sklearn.datasets", "the data set 'digits' needs scikit-learn"),
        ("glyphs", "matplotlib", "the data set 'glyphs' needs matplotlib"),
        ("glyphs", "PIL.ImageFont", "the data set 'glyphs' needs pillow"),
    ],
)
def test_a_missing_package_is_one_sentence(name: str, module: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in DATASETS
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{words}, which is not installed: pip install 'fastproto\[train\]'"):
        load_data(name)
