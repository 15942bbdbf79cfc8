"""ImageNet, its 200 small classes and its long tail, as they lie on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from fastproto.data import CropFlip, DataSplits, ResizedCrop, load_data

from .helpers import named, paint
from .set_files import WNIDS, write_imagenet, write_imagenet200, write_lists


def check_classes(data: DataSplits, root: Path, wnids: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Every picture below its wnid has the label of that wnid."""
    for part in parts:
        found = getattr(data, part)
        for path, label in zip(found.paths, found.labels.tolist(), strict=True):
            assert wnids[label] in path.relative_to(root).parts


def test_imagenet_is_tested_on_val(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG", (0, 0, 0))
    data = load_data("imagenet", root=str(write_imagenet(tmp_path)))
    assert capsys.readouterr().err == "note: not used: 1 folder beside the parts (test)\n"
    check_classes(data, tmp_path, WNIDS, ("train", "validation", "test"))
    found = named(data, tmp_path)
    assert [len(paths) for paths in found.values()] == [15, 3, 18]
    assert {path.split("/")[0] for path in found["test"]} == {"val"}
    assert {path.split("/")[0] for path in found["train"] | found["validation"]} == {"train"}
    assert data.class_names == WNIDS and isinstance(data.augmentation, ResizedCrop)
    assert data.preprocessing.mean == (0.485, 0.456, 0.406)
    half = load_data("imagenet", root=str(tmp_path), validation=0.5, image_size=48)
    assert [len(part) for part in (half.train, half.validation, half.test)] == [9, 9, 18]
    assert half.train[0][0].shape == (3, 48, 48)


def test_a_val_folder_that_is_flat_or_missing(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    shutil.rmtree(root / "val")
    with pytest.raises(FileNotFoundError, match=r"'imagenet' lacks the folder .*val: give the folder that holds train"):
        load_data("imagenet", root=str(root))
    paint(root / "val" / "ILSVRC2012_val_00000001.JPEG", (1, 2, 3))
    with pytest.raises(ValueError, match=r"val holds pictures and no folder per class: move each picture .*val/<wnid>"):
        load_data("imagenet", root=str(root))
    with pytest.raises(FileNotFoundError, match=r"lacks the folder .*train/train: give"):
        load_data("imagenet", root=str(root / "train"))


def test_imagenet200_by_its_annotations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_imagenet200(tmp_path)
    paint(root / "val" / "images" / "extra.JPEG", (0, 0, 0))
    data = load_data("imagenet200", root=str(root))
    check_classes(data, root, WNIDS, ("train", "validation"))
    assert [len(part) for part in (data.train, data.validation, data.test)] == [15, 3, 18]
    for index in range(18):
        image, label = data.test[index]
        assert abs(int(image[0].float().mean()) - 80 * int(label)) <= 3 and int(image[2, 0, 0]) > 150
    assert data.class_names == ("goldfish, Carassius auratus", *WNIDS[1:])
    assert data.preprocessing.image_size == 64 and data.preprocessing.mean == (0.4802, 0.4481, 0.3975)
    assert isinstance(data.augmentation, CropFlip)
    notes = capsys.readouterr().err
    assert "1 folder beside the parts (test)" in notes and "does not name (val/images/extra.JPEG)" in notes
    small = load_data("imagenet200", root=str(root), num_classes=2, image_size=32)
    assert [len(part) for part in (small.train, small.validation, small.test)] == [10, 2, 12]
    assert small.train[0][0].shape == (3, 32, 32) and len(small.class_names) == 2


def test_imagenet200_as_plain_folders(tmp_path: Path) -> None:
    data = load_data("imagenet200", root=str(write_imagenet(tmp_path, size=(32, 32))))
    check_classes(data, tmp_path, WNIDS, ("train", "validation", "test"))
    assert data.preprocessing.image_size == 32 and data.preprocessing.mean == (0.4802, 0.4481, 0.3975)
    assert isinstance(data.augmentation, CropFlip)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("val_0.JPEG\tn99999999\t0", r"line 1 is .*: expected picture<TAB>wnid, with a wnid that is a folder of train"),
        ("val_0.JPEG", "line 1 is 'val_0.JPEG': expected picture<TAB>wnid"),
        ("../x.JPEG\tn01443537", "line 1 is .*: expected picture<TAB>wnid"),
        ("val_99.JPEG\tn01443537\t0", r"val_99\.JPEG is missing, which .*val_annotations\.txt line 1 names"),
        ("val_0.JPEG\tn01443537\nval_0.JPEG\tn01629819", r"line 2 names val_0\.JPEG, which .* line 1 has named before"),
    ],
)
def test_damaged_annotations(line: str, words: str, tmp_path: Path) -> None:
    table = write_imagenet200(tmp_path) / "val" / "val_annotations.txt"
    table.write_text(line + "\n")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_data("imagenet200", root=str(tmp_path))
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_annotations\.txt is missing, which says what class"):
        load_data("imagenet200", root=str(tmp_path))


def test_imagenet_lt_by_its_lists(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path / "imagenet")
    lists = write_lists(tmp_path / "lists", root)
    data = load_data("imagenet-lt", root=str(root), lists=str(lists))
    check_classes(data, root, WNIDS[::-1], ("train", "validation", "test"))
    assert data.class_names == WNIDS[::-1] and isinstance(data.augmentation, ResizedCrop)
    assert torch.bincount(data.train.labels).tolist() == [4, 2, 1]
    found = named(data, root)
    for part, published in (("train", "train"), ("validation", "val"), ("test", "test")):
        lines = (lists / f"ImageNet_LT_{published}.txt").read_text().splitlines()
        assert found[part] == {line.split()[0] for line in lines}
    write_lists(root, root)
    beside = load_data("imagenet-lt", root=str(root), num_classes=2)
    assert torch.bincount(beside.train.labels).tolist() == [4, 2] and beside.class_names == WNIDS[:0:-1]


@pytest.mark.parametrize(
    ("part", "line", "words"),
    [
        ("train", "train/n01443537/x.JPEG", "line 1 is .*: expected a line such as 'train/n01440764/x.JPEG 0'"),
        ("train", "train/n01443537/x.JPEG " + "9" * 5000, "line 1 is .*: expected a line such as"),
        ("train", "/etc/n01443537/x.JPEG 0", "line 1 is .*: expected a line such as"),
        ("train", "../n01443537/x.JPEG 0", "line 1 is .*: expected a line such as"),
        ("train", "train/n01641577/gone.JPEG 0", r"gone\.JPEG is missing, which .*ImageNet_LT_train\.txt line 1 names"),
        ("train", "train/n01443537/x.JPEG 1", "has the label 1 for .*, which stood for n01443537 before"),
        ("train", "train/n01443549/x.JPEG 7", r"ImageNet_LT_train\.txt has 4 labels: give .* without a gap"),
        ("train", "train/n01443537/x.JPEG 3", "has a class with two labels"),
        ("val", "train/n01443537/x.JPEG 7", "line 1 has the label 7, which no training picture has"),
        (
            "test",
            "train/n01443537/n01443537_5.JPEG 2",
            r"_test\.txt line 1 names .*, which .*_val\.txt line 3 has named",
        ),
    ],
)
def test_damaged_lists(part: str, line: str, words: str, tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    table = write_lists(root, root) / f"ImageNet_LT_{part}.txt"
    table.write_text(f"{line}\n{table.read_text()}")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        load_data("imagenet-lt", root=str(root))


def test_what_a_long_tail_by_lists_cannot_honour(tmp_path: Path) -> None:
    root = str(write_lists(tmp_path, write_imagenet(tmp_path)))
    with pytest.raises(ValueError, match=r"num_classes=4, but ImageNet_LT_train\.txt has 3 classes: give 2 to 3"):
        load_data("imagenet-lt", root=root, num_classes=4)
    with pytest.raises(ValueError, match=r"'imagenet-lt' got validation=0\.2: leave validation out"):
        load_data("imagenet-lt", root=root, validation=0.2)
    with pytest.raises(FileNotFoundError, match=r"lacks the list .*ImageNet_LT_train\.txt: .* --data\.lists"):
        load_data("imagenet-lt", root=root, lists=str(tmp_path / "none"))
