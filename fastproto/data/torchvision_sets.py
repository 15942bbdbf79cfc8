"""CIFAR-10 and -100, SVHN and STL-10 by the classes of torchvision, which check the files and fetch them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .augment import CropFlip
from .folder import SPLIT_SEED, VALIDATION, existing_folder
from .optional import require
from .preprocessing import STATISTICS, Preprocessing
from .splits import DataSplits, ImagesInMemory, hold_out

Pictures = tuple[Tensor, Tensor]
"""uint8 [N, 3, H, W] and labels int64 [N]."""


@dataclass(frozen=True)
class Source:
    """A set: its class in torchvision.datasets, how its two parts are asked for, and its pictures as they come."""

    kind: str
    parts: tuple[dict[str, Any], dict[str, Any]]  # training and test
    channels_last: bool = False
    flip: float = 0.5  # how often a training picture is mirrored
    names: tuple[str, ...] = ()  # of the classes, where torchvision has none


_BY_FLAG = ({"train": True}, {"train": False})
_BY_SPLIT = ({"split": "train"}, {"split": "test"})
SOURCES = {
    "cifar10": Source("CIFAR10", _BY_FLAG, channels_last=True),
    "cifar100": Source("CIFAR100", _BY_FLAG, channels_last=True),
    "svhn": Source("SVHN", _BY_SPLIT, flip=0.0, names=tuple("0123456789")),
    "stl10": Source("STL10", _BY_SPLIT),
}


def load_torchvision_set(
    name: str,
    root: str | None,
    num_classes: int | None = None,
    image_size: int | None = None,
    validation: float | None = None,
    *,
    download: bool = False,
) -> DataSplits:
    """The set's own test part; validation is cut from its training part, by class and the same on every call.

    Classes are named and ordered as torchvision does: CIFAR-100 has its 100 fine ones, SVHN the digits. Files must have
    the checksums that torchvision knows.

    Args:
        name: one of ``SOURCES``.
        root: the folder that torchvision's class takes.
        num_classes: take the first labels; None: all.
        image_size: height and width in pixels; None: 32, or 96 of STL-10.
        validation: part of the training pictures that is held out, in (0, 1); None: 0.1.
        download: fetch what is not in ``root``, or unpack the archive that is.

    Raises:
        ValueError: no root, a damaged file, too many classes.
        FileNotFoundError: a missing file.
        OSError: a download that failed.
        ImportError: torchvision is not installed.
    """
    source = SOURCES[name]
    folder = _folder(name, root, download)
    sets = [_read(name, folder, options, download) for options in source.parts]
    names = source.names or _names(name, folder, sets[0])
    if num_classes is not None and num_classes > len(names):
        raise ValueError(
            f"the data set {name!r} has {len(names)} classes, but got num_classes={num_classes}: give 2 to {len(names)}"
        )
    parts = [_pictures(found, source.channels_last, num_classes, image_size) for found in sets]
    (images, labels), test = parts
    kept, held = hold_out(labels, validation or VALIDATION, SPLIT_SEED)
    return DataSplits(
        train=ImagesInMemory(images[kept], labels[kept]),
        validation=ImagesInMemory(images[held], labels[held]),
        test=ImagesInMemory(*test),
        class_names=names[:num_classes],
        preprocessing=Preprocessing(images.shape[-1], 3, *STATISTICS[name]),
        augmentation=CropFlip(flip=source.flip),
    )


def _folder(name: str, root: str | None, download: bool) -> Path:
    if root is not None and download:
        Path(root).expanduser().mkdir(parents=True, exist_ok=True)
    return existing_folder(root, name)


def _read(name: str, folder: Path, options: dict[str, Any], download: bool) -> Any:
    """One part of a set, as torchvision reads it."""
    kind = getattr(require("torchvision.datasets", f"the data set {name!r}"), SOURCES[name].kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy on the pickles of CIFAR, which Python 2 has written
            if not download:
                return kind(str(folder), **options)
            with suppress(RuntimeError, OSError):  # nothing to fetch: the folder may be one that cannot be written
                return kind(str(folder), **options)
            with _alone(folder):
                return kind(str(folder), **options, download=True)
    except (RuntimeError, OSError) as error:  # RuntimeError: a file is missing or has another checksum
        if download:
            reason = " ".join(str(error).split())
            raise OSError(
                f"the data set {name!r} cannot be fetched into {folder} ({reason}): check the network, or copy "
                f"{_archive(kind, options)} there by hand"
            ) from error
        raise _what_is_wrong(name, kind, folder, options) from error


def _alone(folder: Path) -> AbstractContextManager[Any]:
    """Processes of one run fetch a set one after another: the first does, the others find it."""
    lock: AbstractContextManager[Any] = require("filelock", "fetching a data set").FileLock(folder / ".download.lock")
    return lock


def _archive(kind: Any, options: dict[str, Any]) -> str:
    """The name of the file that is fetched."""
    split_list = getattr(kind, "split_list", None)
    return str(split_list[options["split"]][1] if split_list else kind.filename)


def _checksums(kind: Any, options: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """The files of a part below its root, with their MD5 sums."""
    if hasattr(kind, "split_list"):
        _, file, checksum = kind.split_list[options["split"]]
        yield file, checksum
        return
    for file, checksum in [*kind.train_list, *kind.test_list]:
        yield f"{kind.base_folder}/{file}", checksum
    if hasattr(kind, "meta"):
        yield f"{kind.base_folder}/{kind.meta['filename']}", kind.meta["md5"]


def _what_is_wrong(name: str, kind: Any, folder: Path, options: dict[str, Any]) -> Exception:
    """The first file that is missing or damaged, and what to do."""
    intact: Callable[..., bool] = require("torchvision.datasets.utils", f"the data set {name!r}").check_integrity
    for file, checksum in _checksums(kind, options):
        path = folder / file
        if not path.is_file():
            archive = folder / _archive(kind, options)
            packed = archive.is_file() and archive != path
            advice = f"unpack {archive} there" if packed else "give the folder of the set with --data.root"
            flag = "--data.download true does so" if packed else "--data.download true fetches it"
            return FileNotFoundError(f"the data set {name!r} lacks {path}: {advice} ({flag})")
        if not intact(path, checksum):
            return ValueError(
                f"the data set {name!r} has another {path} than was published (its MD5 sum is not {checksum}), perhaps "
                "half a download: fetch it again with --data.download true"
            )
    return ValueError(f"the data set {name!r} in {folder} cannot be read: fetch it again with --data.download true")


def _names(name: str, folder: Path, found: Any) -> tuple[str, ...]:
    names = tuple(getattr(found, "classes", ()))
    if not names:  # of STL-10, whose archive holds a file that torchvision does without
        missing = folder / found.base_folder / found.class_names_file
        raise FileNotFoundError(f"the data set {name!r} lacks {missing}: unpack {found.filename} again")
    return names


def _pictures(found: Any, channels_last: bool, num_classes: int | None, image_size: int | None) -> Pictures:
    """The pictures and labels of a part, of the first classes and in the size that was asked for."""
    data = found.data.transpose(0, 3, 1, 2) if channels_last else found.data
    images = torch.from_numpy(np.ascontiguousarray(data))
    labels = torch.as_tensor(found.targets if hasattr(found, "targets") else found.labels).long()
    if num_classes is not None:
        chosen = labels < num_classes
        images, labels = images[chosen], labels[chosen]
    if image_size not in (None, images.shape[-1]):
        images = F.interpolate(images, size=(image_size, image_size), mode="bilinear", antialias=True)
    return images, labels
