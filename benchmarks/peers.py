"""Other packages that compute the same: each is imported when its row is built, and its errors fit a line."""

from __future__ import annotations

import importlib
import re
from pathlib import PurePosixPath
from types import ModuleType

from .comparison import Unavailable

MOST = 120  # characters of an error's message
PATH = re.compile(
    r"""(?<=["'])/[^"']+(?=["'])"""  # in quotes it may hold spaces
    r"""|(?<![\w/.~-])(?:file://)?/(?!/)(?:[^\s/"'`:;,()<>|]+/)+[^\s/"'`:;,()<>|]*"""
)


def imported(module: str, package: str | None = None) -> ModuleType:
    """The module of a peer.

    Raises:
        Unavailable: the package is not installed, or it cannot be imported here.
    """
    name = package or module
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # built for another torch, without its dependencies, no GPU
        if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
            raise Unavailable(f"{name} is not installed") from None
        raise Unavailable(f"{name} cannot be imported: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """The first line of an error's message, or its type where that is empty; of absolute paths the file's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return PATH.sub(lambda path: PurePosixPath(path[0]).name, lines[0])[:MOST]
