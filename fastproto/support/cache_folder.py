"""Where files are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/fastproto``, or ``~/.cache/fastproto``.

    Raises:
        RuntimeError: neither XDG_CACHE_HOME is set nor a home folder known.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastproto"
