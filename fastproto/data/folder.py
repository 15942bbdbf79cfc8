"""Folders of pictures, one folder per class, decoded on access or kept decoded."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from fastproto.support.text_files import text_lines

from .augment import photo_jitter
from .decode import ends_well, picture_size, with_picture
from .layout import Layout, find_layout, notes, pictures_of
from .picture_cache import NO_CACHE, Caching, cached_pictures
from .preprocessing import STATISTICS, Preprocessing
from .splits import DataSplits, ImagesInMemory, Item, LabelledImages, hold_out
from .tree import File, class_key, print_note, shown

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a name is printed on one line
SMALL = 64
CHECKED = 100_000  # files whose header or end is read before training
DECODED = 1_000  # files that look truncated and are decoded before training
SPLIT_SEED = 2024
VALIDATION = 0.10  # of the training pictures


class ImageFiles(LabelledImages):
    """Picture files and labels int64 [N]; a file is decoded when it is indexed.

    Indexing raises ValueError, naming the file, if it cannot be decoded.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, preprocessing: Preprocessing) -> None:
        self.paths, self.labels, self.preprocessing = list(paths), labels, preprocessing

    def __getitem__(self, index: int) -> Item:
        return with_picture(self.paths[index], self.preprocessing.read), self.labels[index]

    def take(self, indices: Tensor) -> ImageFiles:
        """The files at these indices, int64 [n], in this order."""
        return ImageFiles([self.paths[i] for i in indices.tolist()], self.labels[indices], self.preprocessing)

    def check(self) -> None:
        """Decode the pictures whose files look truncated: at most 1,000, among the first 100,000 files.

        Damage in other files raises when they are indexed.

        Raises:
            ValueError: a picture cannot be decoded; the message names the file.
        """
        doubtful = (path for path in self.paths[:CHECKED] if not ends_well(path))
        for path in islice(doubtful, DECODED):
            with_picture(path, self.preprocessing.read)


class CachedFiles(ImagesInMemory):
    """Decoded picture files: pictures uint8 [N, 3, H, W] in memory, labels int64 [N], and their paths."""

    def __init__(self, paths: Sequence[Path], labels: Tensor, images: Tensor) -> None:
        super().__init__(images, labels)
        self.paths = list(paths)

    def take(self, indices: Tensor) -> CachedFiles:
        """A copy of the pictures at these indices, int64 [n], in this order."""
        return CachedFiles([self.paths[i] for i in indices.tolist()], self.labels[indices], self.images[indices])


def load_folder(
    root: str | None,
    num_classes: int | None = None,
    image_size: int | None = None,
    validation: float | None = None,
    *,
    unused: Collection[str] = (),
    caching: Caching = NO_CACHE,
) -> DataSplits:
    """``root/train/<class>/*`` with ``root/val`` and ``root/test``, or just ``root/<class>/*``.

    With val and test folders these are validation and test. With one of them it is the test set, and 10 % of the
    training pictures (or ``validation``) are validation. With none, 15 % are the test set and 10 % of the rest are
    validation. Parts are stratified and the same on every call. ``root/classes.tsv`` (folder<TAB>name a line) gives
    readable names.

    Parts may have their usual other names, in any case: training; valid, validation, validate, dev; testing, tests,
    eval, evaluation; also train_set, trainset and so on.
    Pictures in folders within a class folder belong to the class. Links are followed, each folder and file is read
    once, and a file in two parts or two classes is an error. Hidden entries (``.name``), those of file servers and
    archives (``__MACOSX``, ``@eaDir``, ...) and files with other suffixes are not read; one line on standard error (of
    rank 0) names what is not used. The headers of the first 100,000 pictures are checked at once.

    Args:
        root: the folder; ``~`` is expanded.
        num_classes: take the first classes by the name of their folder; None: all.
        image_size: None takes the size of the first picture if the first one of every class is at most 64 pixels
            wide and high, and 224 otherwise.
        validation: fraction of the training pictures that is held out, in (0, 1); None: 0.1.
        unused: names of folders in ``root`` that are left alone.
        caching: whether the pictures are decoded now and kept.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a layout that is ambiguous or has too few classes or pictures, or a picture that cannot be read.
    """
    top = existing_folder(root, "image-folder")
    layout = find_layout(top, unused)
    classes = first_classes(layout, num_classes)
    files = {part: pictures_of(layout, part, classes) for part in layout.parts}
    names = readable_names(top / "classes.tsv", classes)
    splits = splits_of_files(files, classes, names, image_size, validation, caching)
    print_notes(layout, classes, files)
    return splits


def splits_of_files(
    files: dict[str, list[list[File]]],
    classes: Sequence[str],
    names: tuple[str, ...],
    image_size: int | None,
    validation: float | None,
    caching: Caching,
) -> DataSplits:
    """A data set of the picture files of each class in each part: ``train``, ``val``, ``test``, in this order.

    A part that is missing is cut from the others; this, sizes and errors are as in :func:`load_folder`. ``classes``
    are named in errors.
    """
    if len(files) == 3 and validation is not None:
        raise ValueError(f"validation={validation}, but the data have validation pictures of their own: leave it out")
    parts = _parts(list(files.values()), classes, validation)
    _check_not_empty(files)
    sizes = [picture_size(found[0].path) for found in files["train"]]
    preprocessing = Preprocessing(image_size or _natural_size(sizes), 3, *STATISTICS["imagenet"])
    images = cached_pictures([path for paths, _ in parts for path in paths], preprocessing, caching)
    if images is None:
        _check_headers(files)
    train, held, test = _data_sets(parts, images, preprocessing)
    return DataSplits(
        train=train,
        validation=held,
        test=test,
        class_names=names,
        preprocessing=preprocessing,
        augmentation=photo_jitter(),
    )


def first_classes(layout: Layout, num_classes: int | None) -> list[str]:
    """The first classes by the name of their folder; None: all. Raises ValueError where there are fewer."""
    known = list(layout.parts["train"].classes)
    if num_classes is not None and num_classes > len(known):
        folder = shown(str(layout.parts["train"].folder.path))
        raise ValueError(
            f"num_classes={num_classes}, but {folder} has {len(known)} class folders: give 2 to {len(known)}"
        )
    return known[:num_classes]


def existing_folder(root: str | None, name: str) -> Path:
    """The folder of a data set. Raises ValueError for none given, FileNotFoundError where it does not exist."""
    if root is None:
        raise ValueError(f"the data set {name!r} got no root: give the folder that holds the pictures with --data.root")
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


def _parts(
    found: list[list[list[File]]], classes: Sequence[str], validation: float | None
) -> list[tuple[list[Path], Tensor]]:
    """Paths and labels of training, validation and test, of the files of each class in each part of the folder."""
    parts = [_joined(files) for files in found]
    if len(parts) == 1:
        parts = _split(*parts[0], classes, 0.15, least=3)  # one for each of the three parts
    if len(parts) == 2:
        parts = [*_split(*parts[0], classes, validation or VALIDATION, least=2), parts[1]]
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
    """Raise before training for a file that is not a picture."""
    every = (file for found in parts.values() for files in found for file in files)
    for file in islice(every, CHECKED):
        picture_size(file.path)


def _natural_size(sizes: list[tuple[int, int]]) -> int:
    """The size of the first picture if the first picture of every class is small, else 224."""
    return min(sizes[0]) if max(map(max, sizes)) <= SMALL else 224


def print_notes(layout: Layout, classes: list[str], files: dict[str, list[list[File]]]) -> None:
    """One line on standard error of what the user should know of the folder."""
    print_note(notes(layout, classes, {part: [len(found) for found in files[part]] for part in files}))


def _split(
    paths: list[Path], labels: Tensor, classes: Sequence[str], fraction: float, *, least: int
) -> list[tuple[list[Path], Tensor]]:
    few = (torch.bincount(labels) < least).nonzero().flatten().tolist()
    if few:
        raise ValueError(
            f"class {shown(classes[few[0]])!r} has fewer than {least} pictures, too few to hold some out: "
            "add pictures, or give separate train, val and test folders"
        )
    return [([paths[i] for i in part.tolist()], labels[part]) for part in hold_out(labels, fraction, SPLIT_SEED)]


def readable_names(table: Path, classes: list[str]) -> tuple[str, ...]:
    """Class names from ``classes.tsv``, else from the folders; undecodable bytes and control characters are escaped."""
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
