"""Image folders: parts, names, sizes, and pictures that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fastproto.data import (
    collate,
    load_data,
)

from .helpers import image_folder, paint


def test_flat_folder_is_split_the_same_every_time(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    splits, again = (load_data("image-folder", root=root) for _ in range(2))
    parts = [splits.train, splits.validation, splits.test]
    assert [len(part) for part in parts] == [45, 6, 9]
    paths = [path for part in parts for path in part.paths]  # type: ignore[attr-defined]
    assert len(set(paths)) == 60
    assert paths == [p for part in (again.train, again.validation, again.test) for p in part.paths]  # type: ignore[attr-defined]
    assert splits.class_names == ("ant", "bee", "cat")
    assert splits.preprocessing.image_size == 10
    image, label = splits.test[0]
    assert image.dtype == torch.uint8 and image.shape == (3, 10, 10)
    assert label.dtype == torch.int64 and int(image[0, 0, 0]) == 80 * int(label)
    images, labels = next(iter(DataLoader(splits.train, batch_size=4, collate_fn=collate)))
    assert images.shape == (4, 3, 10, 10) and labels.shape == (4,)


def test_folder_with_train_and_val_tests_on_val(tmp_path: Path) -> None:
    splits = load_data("image-folder", root=image_folder(tmp_path, ("train", "val")))
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54, 6, 60]
    assert {int(splits.test[i][0][2, 0, 0]) for i in range(60)} == {255}
    assert {int(splits.validation[i][0][2, 0, 0]) for i in range(6)} == {0}


def test_another_share_for_validation(tmp_path: Path) -> None:
    splits = load_data("image-folder", root=image_folder(tmp_path / "two", ("train", "val")), validation=0.25)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45, 15, 60]
    root = image_folder(tmp_path / "three", ("train", "val", "test"), per_class=2)
    with pytest.raises(ValueError, match=r"validation=0\.25, but the data have validation pictures of their own"):
        load_data("image-folder", root=root, validation=0.25)


def test_folder_with_three_parts_keeps_them(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "val", "test"), per_class=2)
    splits = load_data("image-folder", root=root)
    for part, name in ((splits.train, "train"), (splits.validation, "val"), (splits.test, "test")):
        assert len(part) == 6
        assert all(path.parts[-3] == name for path in part.paths)  # type: ignore[attr-defined]


def test_readable_names_first_classes_and_size(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    (tmp_path / "classes.tsv").write_text("bee\thoney bee, Apis\nant\tblack ant\n", encoding="utf-8")
    (tmp_path / "ant" / "notes.txt").write_text("not a picture", encoding="utf-8")
    splits = load_data("image-folder", root=root, num_classes=2, image_size=16)
    assert splits.class_names == ("black ant", "honey bee, Apis")
    assert splits.train[0][0].shape == (3, 16, 16)
    assert splits.train.labels.unique().tolist() == [0, 1]
    (tmp_path / "classes.tsv").write_text("bee honey\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has a line without a tab"):
        load_data("image-folder", root=root)


def test_large_pictures_are_read_at_224(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    paint(tmp_path / "cat" / "00.png", (1, 2, 3), size=(65, 65))
    assert load_data("image-folder", root=root).preprocessing.image_size == 224


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    damaged = tmp_path / "ant" / "05.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    splits = load_data("image-folder", root=root)
    parts = (splits.train, splits.validation, splits.test)
    with pytest.raises(ValueError, match=r"05\.png cannot be read .* replace the file or delete it"):
        for part in parts:
            for i in range(len(part)):
                part[i]
    (tmp_path / "bee" / "00.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00\.png cannot be read"):
        load_data("image-folder", root=root)


def test_bad_image_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no root"):
        load_data("image-folder")
    with pytest.raises(FileNotFoundError, match="does not exist: give a folder with one folder of pictures"):
        load_data("image-folder", root=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="has 0 class folders"):
        load_data("image-folder", root=str(tmp_path))
    root = image_folder(tmp_path / "data", per_class=3)
    with pytest.raises(ValueError, match=r"num_classes=4, but .* has 3 class folders: give 2 to 3"):
        load_data("image-folder", root=root, num_classes=4)
    (tmp_path / "data" / "ant" / "00.png").unlink()
    with pytest.raises(ValueError, match="class 'ant' has fewer than 3 pictures"):
        load_data("image-folder", root=root)
    (tmp_path / "data" / "dog").mkdir()
    with pytest.raises(ValueError, match="dog has no pictures"):
        load_data("image-folder", root=root)


def test_held_out_folders_must_match_the_training_folder(tmp_path: Path) -> None:
    root = image_folder(tmp_path, ("train", "val"), per_class=4)
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    with pytest.raises(ValueError, match="wasp is no class of the training folder"):
        load_data("image-folder", root=root)


def test_an_unpacked_archive(tmp_path: Path) -> None:
    """As ImageNet's subsets come: JPEG files in folders named by synset, a table of names beside them."""
    names = {"n01443537": "goldfish, Carassius auratus", "n01629819": "European fire salamander"}
    (tmp_path / "classes.tsv").write_text("".join(f"{synset}\t{name}\n" for synset, name in names.items()))
    for label, synset in enumerate(names):
        for i in range(4):
            paint(tmp_path / "train" / synset / f"{synset}_{i}.JPEG", (80 * label, 10 * i, 0), size=(32, 32))
    splits = load_data("image-folder", root=str(tmp_path / "train"))
    assert splits.class_names == tuple(names)  # the table lies in no class folder: it names nothing
    assert splits.train[0][0].shape == (3, 32, 32)
