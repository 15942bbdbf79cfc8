"""Names that load on first use, with one sentence where the package that they need is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module


def load_name(
    package: str,
    name: str,
    files: Mapping[str, str],
    *,
    needs: str | None = None,
    distribution: str | None = None,
    extra: str = "integrations",
) -> object:
    """What ``package.name`` stands for, by the file inside of ``package`` that defines it.

    Args:
        package: dotted name of the package.
        name: a public name of it.
        files: the file of each public name, without suffix.
        needs: module of another package that these files import.
        distribution: what pip calls that package, if it differs.
        extra: the extra of this package that installs it.

    Raises:
        AttributeError: no such name.
        ImportError: the other package is not installed; the message has the pip command.
    """
    if name not in files:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    if needs is not None:
        from fastproto.data.optional import require  # imports torch

        require(needs, f"{package}.{name}", distribution, extra)
    found: object = getattr(import_module(f"{package}.{files[name]}"), name)
    return found
