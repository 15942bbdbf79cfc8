"""CIFAR, SVHN and STL-10 in the files that they are published in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastproto.data import CropFlip, DataSplits, load_data

from .helpers import in_memory, same
from .set_files import Pictures, pack_cifar, pictures, write_cifar, write_stl10, write_svhn

LABELS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 4
NAMES = [f"kind {label}" for label in range(10)]


def by_content(images: Tensor, labels: Tensor) -> list[tuple[bytes, int]]:
    return [(image.numpy().tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True)]


def check_parts(data: DataSplits, train: Pictures, test: Pictures) -> None:
    """Training and validation are the published training part, with a tenth of each class held out, in its order."""
    kept, held, tested = (by_content(part.images, part.labels) for part in in_memory(data))
    published = by_content(*train)
    assert sorted(kept + held) == sorted(published)
    assert kept == [item for item in published if item in set(kept)]
    assert sorted(label for _, label in held) == list(range(10))
    assert tested == by_content(*test)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_cifar(
        tmp_path / "c", monkeypatch, "cifar10", pictures(LABELS, 32, 0), pictures(LABELS[:10], 32, 1), NAMES
    )


def test_cifar10(cifar10: Path) -> None:
    data = load_data("cifar10", root=str(cifar10))
    check_parts(data, pictures(LABELS, 32, 0), pictures(LABELS[:10], 32, 1))
    assert data.class_names == tuple(NAMES)
    assert data.preprocessing.mean == (0.4914, 0.4822, 0.4465) and data.preprocessing.image_size == 32
    assert isinstance(data.augmentation, CropFlip) and data.augmentation.flip == 0.5
    before = set(cifar10.iterdir())
    assert same(data, load_data("cifar10", root=str(cifar10), download=True))  # nothing to fetch
    assert set(cifar10.iterdir()) == before  # the folder may be one that cannot be written


def test_cifar100_has_its_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = pictures(LABELS, 32, 0), pictures(LABELS[::-1], 32, 1)
    root = write_cifar(tmp_path / "c", monkeypatch, "cifar100", train, test, NAMES)
    data = load_data("cifar100", root=str(root))
    check_parts(data, train, test)
    assert data.class_names == tuple(NAMES) and data.preprocessing.std == (0.2673, 0.2564, 0.2762)


def test_svhn_names_its_digits_and_mirrors_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = pictures(LABELS, 32, 0), pictures(LABELS[::-1], 32, 1)
    data = load_data("svhn", root=str(write_svhn(tmp_path / "s", monkeypatch, train, test)))
    check_parts(data, train, test)
    assert data.class_names == tuple("0123456789") and data.preprocessing.mean == (0.4377, 0.4438, 0.4728)
    assert isinstance(data.augmentation, CropFlip) and data.augmentation.flip == 0


def test_stl10_is_96_pixels_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = pictures(LABELS, 96, 0), pictures(LABELS[:10], 96, 1)
    root = write_stl10(tmp_path, monkeypatch, train, test, NAMES)
    data = load_data("stl10", root=str(root))
    check_parts(data, train, test)
    assert data.class_names == tuple(NAMES) and data.preprocessing.image_size == 96
    (root / "stl10_binary" / "class_names.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks .*class_names\.txt: unpack stl10_binary\.tar\.gz again"):
        load_data("stl10", root=str(root))


def test_first_classes_another_size_and_another_share(cifar10: Path) -> None:
    data = load_data("cifar10", root=str(cifar10), num_classes=3, image_size=16, validation=0.5)
    assert [len(part) for part in in_memory(data)] == [6, 6, 3]
    assert data.class_names == tuple(NAMES[:3]) and data.preprocessing.image_size == 16
    full = load_data("cifar10", root=str(cifar10), num_classes=3, validation=0.5)
    images = in_memory(full)[2].images.double()
    expected = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
    assert float((in_memory(data)[2].images - expected).abs().max()) <= 1


def test_an_archive_is_unpacked_where_it_lies(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_data("cifar10", root=str(cifar10))
    archive = pack_cifar(cifar10, monkeypatch, "cifar10")
    with pytest.raises(FileNotFoundError, match=rf"unpack {archive} there \(--data\.download true does so\)"):
        load_data("cifar10", root=str(cifar10))
    assert same(before, load_data("cifar10", root=str(cifar10), download=True))


def test_missing_and_damaged_files_are_named(cifar10: Path) -> None:
    batch = cifar10 / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{batch} .* fetch it again with --data\.download true"):
        load_data("cifar10", root=str(cifar10))
    batch.unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {batch}: give the folder of the set with --data\.root"):
        load_data("cifar10", root=str(cifar10))
    with pytest.raises(FileNotFoundError, match=r"lacks .*train_32x32\.mat: give the folder .* true fetches it"):
        load_data("svhn", root=str(cifar10))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_data("cifar10", root=str(cifar10 / "none"))
    with pytest.raises(ValueError, match=r"'cifar10' got no root: .* --data\.root"):
        load_data("cifar10")


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    root = tmp_path / "new"
    with pytest.raises(
        OSError, match=r"'cifar10' cannot be fetched into .*new \(.*\): check the network, or copy cifar-10"
    ):
        load_data("cifar10", root=str(root), download=True)


def test_too_many_classes(cifar10: Path) -> None:
    with pytest.raises(ValueError, match=r"'cifar10' has 10 classes, but got num_classes=11: give 2 to 10"):
        load_data("cifar10", root=str(cifar10), num_classes=11)
