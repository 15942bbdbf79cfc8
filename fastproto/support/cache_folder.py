"""The folder for files that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of the cache: ``$XDG_CACHE_HOME/fastproto``, or ``~/.cache/fastproto``.

    Raises:
        RuntimeError: XDG_CACHE_HOME is not set and the home folder is unknown.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastproto"
