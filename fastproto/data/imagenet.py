"""ImageNet and two sets made of it, as they lie on disk: the whole, 200 classes in 64 x 64, and a long tail of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from fastproto.support.text_files import text_lines

from .augment import CropFlip, ResizedCrop
from .folder import (
    existing_folder,
    first_classes,
    load_folder,
    print_notes,
    readable_names,
    splits_of_files,
)
from .layout import find_layout, pictures_of
from .picture_cache import NO_CACHE, Caching
from .preprocessing import STATISTICS
from .splits import DataSplits
from .tree import SUFFIXES, File, Folder, Leftovers, listing, print_note, shown

Row = tuple[str, str, int]  # of a table: where it stands, the picture's path, its label
LABEL = re.compile("[0-9]{1,9}")
UNLABELLED = ("test",)  # pictures whose classes were never published
LISTS = {"train": "ImageNet_LT_train.txt", "val": "ImageNet_LT_val.txt", "test": "ImageNet_LT_test.txt"}


def load_imagenet(
    root: str | None,
    num_classes: int | None = None,
    image_size: int | None = None,
    validation: float | None = None,
    *,
    name: str = "imagenet",
    caching: Caching = NO_CACHE,
) -> DataSplits:
    """``root/train/<wnid>/*`` and ``root/val/<wnid>/*``: val is the test set, validation is cut from train.

    A folder ``root/test``, whose pictures have no published classes, is not used.

    Arguments and errors as :func:`fastproto.data.folder.load_folder`; also ValueError for a folder ``val`` without a
    folder per class, and FileNotFoundError where ``train`` or ``val`` is missing.
    """
    top = existing_folder(root, name)
    for part in ("train", "val"):
        _check_part(top / part, name)
    splits = load_folder(root, num_classes, image_size, validation, unused=UNLABELLED, caching=caching)
    return replace(splits, augmentation=ResizedCrop())


def _check_part(folder: Path, name: str) -> None:
    where = shown(str(folder))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the data set {name!r} lacks the folder {where}: give the folder that holds train/<wnid> and val/<wnid> "
            "with --data.root"
        )
    inside = list(folder.iterdir())
    if not any(path.is_dir() for path in inside) and any(path.suffix.lower() in SUFFIXES for path in inside):
        raise ValueError(
            f"{where} holds pictures and no folder per class: move each picture into the folder of its class, "
            f"{folder.name}/<wnid>"
        )


def load_imagenet200(
    root: str | None,
    num_classes: int | None = None,
    image_size: int | None = None,
    validation: float | None = None,
    *,
    caching: Caching = NO_CACHE,
) -> DataSplits:
    """The 200 classes of 64 x 64 pictures; val is the test set, validation is cut from train.

    ``root/train/<wnid>/images/*``, ``root/val/images/*`` and ``root/val/val_annotations.txt`` (picture<TAB>wnid a
    line), with names of the classes in ``root/words.txt``; or the folders that :func:`load_imagenet` reads.

    Arguments and errors as there; also ValueError for a damaged table, FileNotFoundError for a picture that it names.
    """
    top = existing_folder(root, "imagenet200")
    if (top / "val" / "images").is_dir():
        splits = _load_annotated(top, num_classes, image_size, validation, caching)
    else:
        splits = load_imagenet(root, num_classes, image_size, validation, name="imagenet200", caching=caching)
    mean, std = STATISTICS["imagenet200"]
    return replace(splits, preprocessing=replace(splits.preprocessing, mean=mean, std=std), augmentation=CropFlip())


def _load_annotated(
    top: Path, num_classes: int | None, image_size: int | None, validation: float | None, caching: Caching
) -> DataSplits:
    _check_part(top / "train", "imagenet200")
    layout = find_layout(top / "train")
    classes = first_classes(layout, num_classes)
    rows = list(_annotated(top / "val" / "val_annotations.txt", list(layout.parts["train"].classes)))
    _check_once(rows)
    test = _files_of(rows, top / "val" / "images", len(classes))
    files = {"train": pictures_of(layout, "train", classes), "test": test}
    names = readable_names(top / "words.txt", classes)
    splits = splits_of_files(files, classes, names, image_size, validation, caching)
    print_notes(layout, classes, files)
    _print_unused(top, {picture for _, picture, _ in rows})
    return splits


def _annotated(table: Path, classes: list[str]) -> Iterator[Row]:
    """The rows of ``val_annotations.txt``."""
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} is missing, which says what class each picture of val/images has: unpack the whole set again"
        )
    labels = {wnid: label for label, wnid in enumerate(classes)}
    for number, line in text_lines(table):
        place = f"{table} line {number}"
        picture, wnid = [*line.split("\t"), ""][:2]
        if wnid not in labels or PurePosixPath(picture).name != picture:
            raise ValueError(
                f"{place} is {shown(line)!r}: expected picture<TAB>wnid, with a wnid that is a folder of train"
            )
        yield place, picture, labels[wnid]


def _print_unused(top: Path, named: set[str]) -> None:
    """One line on what lies beside train and the pictures of val that the table names."""
    left = Leftovers(top)
    for folder in listing(Folder.at(top), left).folders:
        if folder.path.name not in ("train", "val"):
            left.add("folder beside the parts", folder.path)
    for file in listing(Folder.at(top / "val" / "images"), left).files:
        if file.path.name not in named:
            left.add("file that val_annotations.txt does not name", file.path)
    print_note(f"not used: {left}" if str(left) else "")


def load_imagenet_lt(
    root: str | None,
    lists: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    *,
    caching: Caching = NO_CACHE,
) -> DataSplits:
    """The long-tailed part of ImageNet by its published lists, whose lines are ``train/n01440764/x.JPEG 0``.

    Classes are in the order of the lists' labels and named by wnid. Source: Liu et al., CVPR 2019.

    Args:
        root: the folder of ImageNet that the lists' paths begin in.
        lists: the folder of ``ImageNet_LT_train.txt``, ``_val.txt`` and ``_test.txt``; None: root.
        num_classes: take the first labels; None: all.
        image_size: height and width in pixels; None: as :func:`fastproto.data.folder.load_folder`.

    Raises:
        FileNotFoundError: a list or a picture is missing.
        ValueError: a damaged line, a class without training pictures or with two folders, a picture listed twice.
    """
    top = existing_folder(root, "imagenet-lt")
    tables = top if lists is None else Path(lists).expanduser()
    parts = {part: list(_listed(tables / list_name)) for part, list_name in LISTS.items()}
    _check_once([row for rows in parts.values() for row in rows])
    classes = _classes_of(parts, num_classes)
    files = {part: _files_of(rows, top, len(classes)) for part, rows in parts.items()}
    splits = splits_of_files(files, classes, tuple(classes), image_size, None, caching)
    return replace(splits, augmentation=ResizedCrop())


def _listed(table: Path) -> Iterator[Row]:
    if not table.is_file():
        raise FileNotFoundError(
            f"the data set 'imagenet-lt' lacks the list {table}: give the folder of the lists with --data.lists"
        )
    for number, line in text_lines(table):
        place = f"{table} line {number}"
        picture, _, label = line.rpartition(" ")
        path = PurePosixPath(picture)
        if not LABEL.fullmatch(label) or len(path.parts) < 2 or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{place} is {shown(line)!r}: expected a line such as 'train/n01440764/x.JPEG 0'")
        yield place, picture, int(label)


def _check_once(rows: list[Row]) -> None:
    seen: dict[str, str] = {}
    for place, picture, _ in rows:
        other = seen.setdefault(picture, place)
        if other is not place:
            raise ValueError(f"{place} names {shown(picture)}, which {other} has named before: list it once")


def _classes_of(parts: dict[str, list[Row]], num_classes: int | None) -> list[str]:
    """The wnid of each label, for the first ``num_classes`` or all."""
    wnids: dict[int, str] = {}
    for part, rows in parts.items():
        for place, picture, label in rows:
            wnid = PurePosixPath(picture).parts[-2]
            if part != "train" and label not in wnids:
                raise ValueError(f"{place} has the label {label}, which no training picture has: take lists of one set")
            if wnids.setdefault(label, wnid) != wnid:
                raise ValueError(
                    f"{place} has the label {label} for {shown(wnid)}, which stood for {shown(wnids[label])} before: "
                    "give each class one label"
                )
    count = len(wnids)
    if count < 2 or max(wnids) >= count:
        raise ValueError(f"{LISTS['train']} has {count} labels: give 2 or more, 0, 1, 2, ... without a gap")
    if len(set(wnids.values())) < count:
        raise ValueError(f"{LISTS['train']} has a class with two labels: give each class one label")
    if num_classes is not None and num_classes > count:
        raise ValueError(f"num_classes={num_classes}, but {LISTS['train']} has {count} classes: give 2 to {count}")
    return [wnids[label] for label in range(num_classes or count)]


def _files_of(rows: list[Row], folder: Path, num_classes: int) -> list[list[File]]:
    """The files of each class, for the first classes."""
    found: list[list[File]] = [[] for _ in range(num_classes)]
    for place, picture, label in rows:
        if label < num_classes:
            found[label].append(_file(folder / picture, place))
    return found


def _file(path: Path, place: str) -> File:
    """The picture that a row of a table names. Raises FileNotFoundError where there is no such file."""
    try:
        facts = path.stat()
    except OSError as error:
        raise FileNotFoundError(
            f"{shown(str(path))} is missing, which {place} names: unpack the whole set, or give its folder with "
            "--data.root"
        ) from error
    return File(path, (facts.st_dev, facts.st_ino), facts.st_size)
