"""Interfaces of other packages and of published code, on top of this package.

No module of it needs the other package to be imported: a name that does says what to install when it is first used.
Names load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastproto.compat.lazy_names import load_name

if TYPE_CHECKING:
    from fastproto.compat.renewal import heads_in, renew_assignments

_FILES = {"heads_in": "renewal", "renew_assignments": "renewal"}

__all__ = ["heads_in", "renew_assignments"]


def __getattr__(name: str) -> object:
    return load_name(__name__, name, _FILES)
