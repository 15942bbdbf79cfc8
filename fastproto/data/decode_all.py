"""Decodes all pictures of a data set, by several processes where that is faster."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from .decode import with_picture
from .free_memory import free_memory
from .optional import require
from .preprocessing import Preprocessing
from .tree import is_first_rank

Pictures = npt.NDArray[np.uint8]
CHUNK = 2**18  # bytes that a process sends at once: a bar that moves, and little memory with many processes
SECONDS_PER_FILE, SECONDS_PER_BYTE = 2e-4, 1e-8  # of one process, roughly
WORTHWHILE = 1.0  # seconds: starting processes takes some tenths
MEMORY_OF_ONE = 2**30  # bytes: a process decodes photographs of 20 million pixels in that


class _Files(Dataset[Any]):
    """Pictures by the number of their file."""

    def __init__(self, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.paths, self.preprocessing = paths, preprocessing
        self.shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Pictures:
        pixels: Pictures = with_picture(self.paths[index], self.preprocessing.read).numpy()
        return pixels

    def __getitems__(self, indices: Sequence[int]) -> Pictures:
        """uint8 [n, channels, H, W] of the first n files, up to one that cannot be decoded."""
        found = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices):
            try:
                found[row] = self.read(index)
            except ValueError:
                return found[:row]
        return found


def decode_all(
    paths: Sequence[Path], preprocessing: Preprocessing, *, processes: int | None = None, progress: bool = False
) -> Pictures:
    """uint8 [N, channels, H, W] of all files, in order.

    Args:
        processes: how many decode; 0: this one; None: one per core where that pays (Linux), else 0.
        progress: draw a bar on standard error after two seconds, on the first rank.

    Raises:
        ValueError: a picture cannot be decoded: the first in order, as :func:`fastproto.data.decode.with_picture`.
    """
    files = _Files(paths, preprocessing)
    pictures = np.empty((len(paths), *files.shape), np.uint8)
    step = max(1, CHUNK // max(pictures[:1].nbytes, 1))
    hidden = not (progress and is_first_rank() and sys.stderr is not None)
    bar = require("tqdm", "decoding pictures", "tqdm").tqdm
    with warnings.catch_warnings(), bar(total=len(paths), delay=2, disable=hidden, leave=False) as drawn:
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        drawn.set_description("decoding pictures", refresh=False)
        done = 0
        count = processes_for(paths) if processes is None else processes
        for chunk in picture_loader(files, step, processes=count, collate=_unchanged):
            end = min(done + step, len(paths))
            pictures[done : done + len(chunk)] = chunk
            for index in range(done + len(chunk), end):  # raises here, without the traceback of another process
                pictures[index] = files.read(index)
            drawn.update(end - done)
            done = end
    return pictures


def picture_loader(
    files: Dataset[Any], batch_size: int, *, processes: int, collate: Callable[[Any], Any]
) -> DataLoader[Any]:
    """Batches of files in order, read by so many other processes, or by this one where that is 0."""
    return DataLoader(
        files,
        batch_size=batch_size,
        num_workers=processes,
        collate_fn=collate,
        multiprocessing_context="fork" if processes else None,
        generator=torch.Generator(),  # the global one stays as it is
    )


def _unchanged(chunk: Any) -> Any:
    return chunk


def processes_for(paths: Sequence[Path]) -> int:
    """How many processes decode faster than this one alone; only where they need no module of the caller's to start."""
    if not sys.platform.startswith("linux"):
        return 0
    seconds = sum(SECONDS_PER_FILE + SECONDS_PER_BYTE * _size(path) for path in paths)
    if seconds < WORTHWHILE:
        return 0
    count = min(len(os.sched_getaffinity(0)), int(min(free_memory() / MEMORY_OF_ONE, seconds / WORTHWHILE)))
    return count if count > 1 else 0


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # decoding says why
        return 0
