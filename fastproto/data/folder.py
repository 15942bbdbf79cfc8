"""Folders of pictures, one folder per class, read when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fastproto.support.text_files import text_lines

from .augment import AffineJitter
from .decode import ends_well, picture_size, with_picture
from .layout import Layout, find_layout, notes, pictures_of
from .picture_cache import CacheMode, cached_pictures
from .preprocessing import Preprocessing
from .splits import DataSplits, ImagesInMemory, Item, LabelledImages, hold_out
from .tree import File, class_key, print_note, shown

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a name is printed on one line
SMALL = 64
CHECKED = 100_000  # files that are looked at before training
DECODED = 1_000
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
        return with_picture(self.paths[index], self.preprocessing.read), self.labels[index]

    def check(self) -> None:
        """Decode the pictures whose files do not end as their formats do, such as truncated ones.

        At most 1,000, among the first 100,000 files: the others are found when they are asked for.

        Raises:
            ValueError: a picture cannot be decoded; the message names the file.
        """
        doubtful = (path for path in self.paths[:CHECKED] if not ends_well(path))
        for path in islice(doubtful, DECODED):
            with_picture(path, self.preprocessing.read)


class CachedFiles(ImagesInMemory):
    """Picture files that are decoded: pictures uint8 [N, 3, H, W] in memory, labels int64 [N], and their paths."""

    def __init__(self, paths: Sequence[Path], labels: Tensor, images: Tensor) -> None:
        super().__init__(images, labels)
        self.paths = list(paths)


def load_folder(
    root: str | None,
    num_classes: int | None = None,
    image_size: int | None = None,
    *,
    cache: CacheMode = "false",
    progress: bool = False,
) -> DataSplits:
    """``root/train/<class>/*`` with ``root/val`` and ``root/test``, or just ``root/<class>/*``.

    With val and test folders these are validation and test. With one of them it is the test set, and 10 % of the
    training pictures are validation. With none, 15 % are the test set and 10 % of the rest are validation. Parts
    are stratified and the same on every call. ``root/classes.tsv`` (folder<TAB>name a line) gives readable names.

    Parts may have their usual other names, in any case: training; valid, validation, validate, dev; testing, tests,
    eval, evaluation; also train_set, trainset and so on.
    Pictures in folders within a class folder belong to the class. Links are followed, each folder and file is read
    once, and a file in two parts or two classes is an error. Hidden entries (``.name``), those of file servers and
    archives (``__MACOSX``, ``@eaDir``, ...) and files with other suffixes are not read; one line on standard error (of
    rank 0) names what is not used. The header of each of the first 100,000 pictures is read beforehand.

    Args:
        num_classes: take the first classes by the name of their folder; None: all.
        image_size: None takes the size of the first picture if the first one of every class is at most 64 pixels
            wide and high, and 224 otherwise.
        cache, progress: as in :func:`fastproto.data.load_data`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a layout that is ambiguous or has too few classes or pictures, or a picture that cannot be read.
    """
    top = _existing(root)
    layout = find_layout(top)
    known = list(layout.parts["train"].classes)
    if num_classes is not None and num_classes > len(known):
        folder = shown(str(layout.parts["train"].folder.path))
        raise ValueError(
            f"num_classes={num_classes}, but {folder} has {len(known)} class folders: give 2 to {len(known)}"
        )
    classes = known[:num_classes]
    files = {part: pictures_of(layout, part, classes) for part in layout.parts}
    names = _readable_names(top / "classes.tsv", classes)
    parts = _parts(list(files.values()), classes)
    _check_not_empty(files)
    sizes = [picture_size(found[0].path) for found in files["train"]]
    preprocessing = Preprocessing(image_size or _natural_size(sizes), 3, MEAN, STD)
    every = [path for paths, _ in parts for path in paths]
    images = cached_pictures(every, preprocessing, cache, progress=progress)
    if images is None:
        _check_headers(files)
    _print_notes(layout, classes, files)
    train, validation, test = _data_sets(parts, images, preprocessing)
    return DataSplits(
        train=train,
        validation=validation,
        test=test,
        class_names=names,
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


def _joined(found: list[list[File]]) -> tuple[list[Path], Tensor]:
    labels = torch.arange(len(found)).repeat_interleave(torch.tensor([len(files) for files in found]))
    return [file.path for files in found for file in files], labels


def _parts(found: list[list[list[File]]], classes: list[str]) -> list[tuple[list[Path], Tensor]]:
    """Paths and labels of training, validation and test, of the files of each class in each part of the folder."""
    parts = [_joined(files) for files in found]
    if len(parts) == 1:
        parts = _split(*parts[0], classes, 0.15, least=3)  # one for each of the three parts
    if len(parts) == 2:
        parts = [*_split(*parts[0], classes, 0.10, least=2), parts[1]]
    return parts


def _data_sets(
    parts: list[tuple[list[Path], Tensor]], images: Tensor | None, preprocessing: Preprocessing
) -> list[LabelledImages]:
    if images is None:
        return [ImageFiles(paths, labels, preprocessing) for paths, labels in parts]
    shares = images.split([len(paths) for paths, _ in parts])
    return [CachedFiles(*part, share) for part, share in zip(parts, shares, strict=True)]


def _check_not_empty(parts: dict[str, list[list[File]]]) -> None:
    for file in (file for found in parts.values() for files in found for file in files):
        if file.size == 0:
            raise ValueError(f"the image {file.path} cannot be read (it is empty): replace the file or delete it")


def _check_headers(parts: dict[str, list[list[File]]]) -> None:
    """Find out before training that a file is no picture."""
    every = (file for found in parts.values() for files in found for file in files)
    for file in islice(every, CHECKED):
        picture_size(file.path)


def _natural_size(sizes: list[tuple[int, int]]) -> int:
    """The first picture of every class speaks for its class."""
    return min(sizes[0]) if max(map(max, sizes)) <= SMALL else 224


def _print_notes(layout: Layout, classes: list[str], files: dict[str, list[list[File]]]) -> None:
    print_note(notes(layout, classes, {part: [len(found) for found in files[part]] for part in files}))


def _split(
    paths: list[Path], labels: Tensor, classes: list[str], fraction: float, *, least: int
) -> list[tuple[list[Path], Tensor]]:
    few = (torch.bincount(labels) < least).nonzero().flatten().tolist()
    if few:
        raise ValueError(
            f"class {shown(classes[few[0]])!r} has fewer than {least} pictures, too few to hold some out: "
            "add pictures, or give separate train, val and test folders"
        )
    return [([paths[i] for i in part.tolist()], labels[part]) for part in hold_out(labels, fraction, SPLIT_SEED)]


def _readable_names(table: Path, classes: list[str]) -> tuple[str, ...]:
    """Names of the classes: those of ``classes.tsv``, else of their folders; what is no text is escaped."""
    names: dict[str, str] = {}
    for number, line in text_lines(table) if table.is_file() else ():
        folder, tab, name = line.partition("\t")
        if not tab:
            raise ValueError(f"{table} has a line without a tab ({number}): write folder<TAB>name on every line")
        key, name = class_key(folder.strip()), name.partition("\t")[0].strip()
        if names.setdefault(key, name) != name:
            raise ValueError(f"{table} line {number} names the folder {shown(folder)} again: give each folder one name")
    readable = (names.get(key, key) for key in classes)
    texts = (name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in readable)
    return tuple(CONTROL.sub(lambda found: ascii(found[0])[1:-1], text) for text in texts)
