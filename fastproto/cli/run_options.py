"""What the commands share that use a trained classifier: options, files that cannot be read or written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastproto.cli.command_runner import print_error
from fastproto.cli.parser import Parser

CHECKPOINT = "a checkpoint, or a run folder (its best checkpoint)"


def add_batch_options(parser: Parser) -> None:
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at once (default 64)")
    parser.add_argument("--device", default="cpu", help="cpu (default), or cuda on a GPU")


def check_batch_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"--batch-size is {size}; expected a whole number >= 1")


@dataclass
class Unread:
    """Reports the files that cannot be read, one line each on standard error, and counts them."""

    count: int = 0

    def __call__(self, sentence: str) -> None:
        self.count += 1
        print_error(f"error: {sentence}")


def check_output(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Raise ValueError if a file cannot be written, before minutes of work."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{option} is {path}; expected a name that ends in {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{option} is {path}, a folder; expected the name of a file")
    check_writable(option, path)


def check_writable(option: str, path: Path) -> None:
    """Raise ValueError if nothing can be written where a file or folder is to be."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} is {path} and nothing can be written in {folder}; expected another folder")
