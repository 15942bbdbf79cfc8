"""Imports of packages that only training needs, with an error that says what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, needed_by: str, package: str | None = None, extra: str = "train") -> Any:
    """Import ``module``, or raise ImportError with the pip command; the reason too if it is installed and fails.

    Args:
        module: dotted name, for instance ``"sklearn.datasets"``.
        needed_by: subject of the error message, for instance ``"the data set 'digits'"``.
        package: name of the distribution, if it differs from the first part of ``module``.
        extra: the extra of this package that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        state = "is not installed" if absent else f"cannot be imported ({' '.join(str(error).split())})"
        raise ImportError(f"{needed_by} needs {name}, which {state}: pip install 'fastproto[{extra}]'") from error
