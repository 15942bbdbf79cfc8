"""Folders of pictures, one folder per class, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from .augment import AffineJitter
from .optional import require
from .preprocessing import Preprocessing
from .splits import DataSplits, Item, LabelledImages, hold_out

if TYPE_CHECKING:
    from PIL import Image

Result = TypeVar("Result")

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
SMALL = 64
SPLIT_SEED = 2024
# Statistics of ImageNet, which photographs of other sources come close to.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageFiles(LabelledImages):
    """Picture files and labels int64 [N]; a file is decoded when its item is asked for.

    Raises ValueError, naming the file, when it cannot be decoded.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, preprocessing: Preprocessing) -> None:
        self.paths, self.labels, self.preprocessing = list(paths), labels, preprocessing

    def __getitem__(self, index: int) -> Item:
        return _opened(self.paths[index], self.preprocessing.read), self.labels[index]


def load_folder(root: str | None, num_classes: int | None = None, image_size: int | None = None) -> DataSplits:
    """``root/train/<class>/*`` with ``root/val`` and ``root/test``, or just ``root/<class>/*``.

    With val and test folders these are validation and test. With one of them it is the test set, and 10 % of the
    training pictures are validation. With none, 15 % are the test set and 10 % of the rest are validation. Parts
    are stratified and the same on every call. ``root/classes.tsv`` (folder<TAB>name a line) gives readable names.

    Args:
        num_classes: take the first classes by the name of their folder; None: all.
        image_size: None takes the size of the first picture if the first one of every class is at most 64 pixels
            wide and high, and 224 otherwise.
    """
    top = _existing(root)
    train_root = top / "train" if (top / "train").is_dir() else top
    names = _class_folders(train_root)
    if num_classes is not None and num_classes > len(names):
        raise ValueError(
            f"num_classes={num_classes}, but {train_root} has {len(names)} class folders: give 2 to {len(names)}"
        )
    classes = names[:num_classes]
    paths, labels = _pictures(train_root, classes)
    preprocessing = Preprocessing(image_size or _natural_size(paths, labels), 3, MEAN, STD)

    parts = [(paths, labels)]
    for held_out in ("val", "test") if train_root != top else ():
        if (top / held_out).is_dir():
            _check_known(top / held_out, names)
            parts.append(_pictures(top / held_out, classes, some_may_be_empty=True))
    if len(parts) == 1:
        parts = _split(*parts[0], classes, 0.15)
    if len(parts) == 2:
        parts = [*_split(*parts[0], classes, 0.10), parts[1]]
    train, validation, test = (ImageFiles(files, targets, preprocessing) for files, targets in parts)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        class_names=_readable_names(top / "classes.tsv", classes),
        preprocessing=preprocessing,
        augmentation=AffineJitter(rotation=5, scale=0.15, translation=0.1, flip=0.5),
    )


def _existing(root: str | None) -> Path:
    if root is None:
        raise ValueError("the data set 'image-folder' got no root: give the folder that holds the pictures")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(
            f"the folder {path} does not exist: give a folder with one folder of pictures per class, "
            "or with train/<class> and val/<class>"
        )
    return path


def _class_folders(root: Path) -> list[str]:
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise ValueError(f"the folder {root} has {len(names)} class folders: give a folder with at least 2")
    return names


def _check_known(root: Path, names: list[str]) -> None:
    unknown = sorted(set(_class_folders(root)) - set(names))
    if unknown:
        raise ValueError(
            f"the folder {root / unknown[0]} is no class of the training folder: "
            "use the same names of class folders in train, val and test"
        )


def _pictures(root: Path, classes: list[str], some_may_be_empty: bool = False) -> tuple[list[Path], Tensor]:
    """All picture files below ``root/<class>``, sorted, with their labels."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not found and not some_may_be_empty:
            raise ValueError(
                f"the folder {root / name} has no pictures ({' '.join(sorted(SUFFIXES))}): add some or remove it"
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"the folder {root} has no pictures ({' '.join(sorted(SUFFIXES))}): add some or remove it")
    return paths, torch.tensor(labels)


def _split(paths: list[Path], labels: Tensor, classes: list[str], fraction: float) -> list[tuple[list[Path], Tensor]]:
    few = (torch.bincount(labels) < 3).nonzero().flatten().tolist()
    if few:
        raise ValueError(
            f"class {classes[few[0]]!r} has fewer than 3 pictures, too few to hold some out: "
            "add pictures, or give separate train, val and test folders"
        )
    return [([paths[i] for i in part.tolist()], labels[part]) for part in hold_out(labels, fraction, SPLIT_SEED)]


def _natural_size(paths: list[Path], labels: Tensor) -> int:
    """The first picture of every class speaks for its class: opening all of a large set would take minutes."""
    firsts = (labels.diff(prepend=labels.new_tensor([-1])) != 0).nonzero().flatten().tolist()
    sizes = [_opened(paths[i], lambda image: image.size) for i in firsts]
    return min(sizes[0]) if max(map(max, sizes)) <= SMALL else 224


def _opened(path: Path, use: Callable[[Image.Image], Result]) -> Result:
    pil = require("PIL.Image", "the data set 'image-folder'", "pillow")
    try:
        with pil.open(path) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, pil.DecompressionBombError) as error:
        raise ValueError(f"the image {path} cannot be read ({error}): replace the file or delete it") from error


def _readable_names(table: Path, classes: list[str]) -> tuple[str, ...]:
    if not table.is_file():
        return tuple(classes)
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(row) < 2 for row in rows):
        raise ValueError(f"{table} has a line without a tab: write folder<TAB>name on every line")
    names = {row[0]: row[1].strip() for row in rows}
    return tuple(names.get(name, name) for name in classes)
