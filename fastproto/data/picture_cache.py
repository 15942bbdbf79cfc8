"""Pictures of a data set, decoded once and kept as uint8 [N, channels, H, W] in the cache folder.

A file is a SHA-256 digest and the pixels. The digest is of the pixels and of all that they depend on: the key, which
also gives the file its name. A file that is damaged, cut short or of other pictures is made again.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fastproto import __version__
from fastproto.support.atomic_files import write_whole
from fastproto.support.cache_folder import cache_folder

from .decode_all import Pictures, decode_all
from .free_memory import free_memory
from .optional import require
from .preprocessing import Preprocessing
from .tree import print_note, shown

CacheMode = Literal["auto", "true", "false"]
DECODING = 1  # one more whenever a picture is decoded to other pixels than before
LARGEST = 2 * 2**30  # bytes of pixels that are kept unless told otherwise
SHARE = 4  # they take at most this part of the free memory
KEPT = 8 * 2**30  # bytes of all kept files
SUFFIX = ".pictures"
LIBRARIES = ("avif", "jpg", "jpg_2000", "libjpeg_turbo", "libtiff", "littlecms2", "webp", "zlib", "zlib_ng")


@dataclass(frozen=True)
class Caching:
    """Whether pictures are decoded once and kept.

    ``mode``: ``"auto"`` does so up to 2 GiB and a quarter of the free memory, ``"true"`` always, ``"false"`` never.
    ``progress``: draw a bar on standard error after two seconds of decoding.
    """

    mode: CacheMode = "false"
    progress: bool = False


NO_CACHE = Caching()


def cached_pictures(paths: Sequence[Path], preprocessing: Preprocessing, caching: Caching) -> Tensor | None:
    """The pictures of all files, uint8 [N, channels, H, W], kept from before or decoded now and kept.

    Whatever keeps them from being kept costs time and one line on standard error.

    Args:
        caching: ``"auto"`` gives None for more than 2 GiB or a quarter of the free memory, ``"false"`` always.

    Raises:
        ValueError: a picture cannot be decoded, the first in order; or more than the free memory with ``"true"``.
    """
    shape = (len(paths), preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    if not _wanted(shape, caching.mode):
        return None
    file = PictureFile(_key(paths, preprocessing), shape)
    pictures = file.read()
    if pictures is None:
        pictures = decode_all(paths, preprocessing, progress=caching.progress)
        if _key(paths, preprocessing) == file.key:  # no file has changed meanwhile
            file.write(pictures)
    return torch.from_numpy(pictures)


def _wanted(shape: tuple[int, ...], cache: CacheMode) -> bool:
    size, free = math.prod(shape), free_memory()
    if cache == "true" and size > free:
        raise ValueError(
            f"the data set got cache='true', and its {shape[0]} pictures of {shape[-1]} x {shape[-1]} pixels take "
            f"{size / 2**30:.1f} GiB where {free / 2**30:.1f} GiB of memory are free: give 'auto' or 'false'"
        )
    return cache == "true" or (cache == "auto" and size <= min(LARGEST, free / SHARE))


def _key(paths: Sequence[Path], preprocessing: Preprocessing) -> bytes:
    """Digest of all that the pixels depend on: the files, how they are decoded, and by which versions."""
    read = (preprocessing.image_size, preprocessing.channels, preprocessing.light_on_dark)
    digest = hashlib.sha256(repr((DECODING, __version__, _pillow(), read)).encode())
    for path in paths:
        digest.update(f"{path}\0{_facts(path)}\0".encode(errors="surrogateescape"))
    return digest.digest()


def _facts(path: Path) -> tuple[int, ...]:
    """Size, times and number of a file. Its time of change is not set back by whoever keeps the time of writing."""
    try:
        facts = os.stat(path)
    except OSError:  # decoding says why
        return ()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _pillow() -> tuple[str | None, ...]:
    features = require("PIL.features", "reading an image", "pillow")
    return (require("PIL", "reading an image", "pillow").__version__, *map(features.version, LIBRARIES))


@dataclass(frozen=True)
class PictureFile:
    """The place of the pixels of one key."""

    key: bytes
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        """Raises RuntimeError where no home folder is known."""
        return cache_folder() / "pictures" / f"{self.shape[0]}x{self.shape[-1]}-{self.key.hex()[:32]}{SUFFIX}"

    def read(self) -> Pictures | None:
        """What :meth:`write` kept; None where there is nothing, or no whole file of this key."""
        with suppress(OSError, RuntimeError):
            path = self.path
            if not path.is_file():  # a pipe would be waited for
                return None
            with path.open("rb") as file:
                digest = file.read(hashlib.sha256().digest_size)
                if os.fstat(file.fileno()).st_size != len(digest) + math.prod(self.shape):
                    return None
                pictures = np.empty(self.shape, np.uint8)
                file.readinto(pictures.data)
            if self._digest(pictures) == digest:
                with suppress(OSError):  # the time of use; a folder that only may be read keeps the old one
                    os.utime(path)
                return pictures
        return None

    def write(self, pictures: Pictures) -> None:
        """Keep them; where that is not possible, say so on standard error."""
        try:
            path = self.path
            write_whole(path, lambda temporary: self._fill(temporary, pictures))
        except (OSError, RuntimeError) as error:
            print_note(shown(f"could not write the picture cache ({error}); pictures are decoded again next time"))
        else:
            remove_oldest(path)

    def _fill(self, path: Path, pictures: Pictures) -> None:
        with path.open("wb") as file:
            file.write(self._digest(pictures))
            file.write(pictures.data)

    def _digest(self, pictures: Pictures) -> bytes:
        digest = hashlib.sha256(self.key)
        digest.update(pictures.data)
        return digest.digest()


def remove_oldest(newest: Path) -> None:
    """Remove the files beside this one that were not used for longest, until all take at most 8 GiB; never raises."""
    left = float(KEPT)
    for _, size, path in sorted(_kept(newest.parent), reverse=True):
        left -= size
        if left < 0 and path != str(newest):
            with suppress(OSError):
                os.unlink(path)


def _kept(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Time of use, size and path of the files in the cache."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                with suppress(OSError):
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime, facts.st_size, entry.path
