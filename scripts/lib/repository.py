"""The paths of the repository, and imports of the package from it without an installation."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NOT_MEASURED = "not measured"
if sys.version_info >= (3, 9):  # noqa: UP036 - an older Python must get as far as ``require``, whose message names the version
    Record = dict[str, Any]
    """A JSON object, whose keys its writer and its readers agree on."""
OLDEST = (3, 10)
# The modules that fastproto[train] installs
CORE = ("torch", "numpy", "scipy", "safetensors", "numba")
TRAIN = (*CORE, "lightning", "torchvision", "yaml", "sklearn", "matplotlib", "PIL", "filelock", "tqdm")


def use_repository() -> None:
    """Makes ``fastproto`` and ``fastproto_kernels`` importable from the repository, here and in child processes.

    The repository takes precedence over installed packages.
    """
    folders = [str(ROOT), str(ROOT / "scripts" / "lib" / "uninstalled")]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    before = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*folders, *before]))


def lacking(modules: tuple[str, ...]) -> str:
    """A phrase that says what this Python lacks, its version included; empty if nothing is missing."""
    if sys.version_info < OLDEST:
        return f"is Python {sys.version_info[0]}.{sys.version_info[1]}, older than {OLDEST[0]}.{OLDEST[1]}"
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"has no {' and no '.join(missing)}" if missing else ""


def need(*modules: str) -> None:
    """Exits with one sentence if this Python lacks a module: for scripts that install nothing."""
    lacks = lacking(modules)
    if lacks:
        expected = " with ".join(["Python 3.10 or newer", *([" and ".join(modules)] if modules else [])])
        sys.exit(f"{sys.executable} {lacks}; {sys.argv[0]} needs {expected}")


def require(*modules: str) -> None:
    """Returns if this Python has the modules; otherwise runs the script with ``.venv``, which is made if needed."""
    lacks = lacking(modules)
    if not lacks:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if Path(sys.prefix).resolve() == ROOT / ".venv":
        sys.exit(f"{python} {lacks}: remove .venv and start again")
    try:
        code = subprocess.run([str(ROOT / "scripts" / "venv"), "train"]).returncode
    except OSError:  # no shell
        code = 1
    if code != 0:
        print(f"{sys.executable} {lacks}, and .venv, which would have it, could not be made", file=sys.stderr)
        sys.exit(code)
    os.execv(python, [str(python), *sys.argv])
