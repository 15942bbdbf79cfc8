"""Other packages that compute the same: each is imported when its row is built."""

from __future__ import annotations

import importlib
from types import ModuleType

from .comparison import Unavailable


def imported(module: str, package: str | None = None) -> ModuleType:
    """The module of a peer.

    Raises:
        Unavailable: the package is not installed, or it cannot be imported here.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise Unavailable(f"{package or module} is not installed") from None
    except (ImportError, OSError, RuntimeError) as error:  # built for another torch, no GPU
        raise Unavailable(f"{package or module} cannot be imported: {str(error).splitlines()[0]}") from None
