"""Where the repository is, and how a script imports the package from it without an installation."""

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
Record = dict[str, Any]
"""A JSON object: what it holds is known to those who write and read it."""


def use_repository() -> None:
    """Make ``fastproto`` and ``fastproto_kernels`` importable from the repository, here and in child processes.

    The repository comes before whatever is installed.
    """
    folders = [str(ROOT), str(ROOT / "scripts" / "lib" / "uninstalled")]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    before = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*folders, *before]))


def require(*modules: str) -> None:
    """Go on with this Python where it has the modules; otherwise start again with that of ``.venv``, made if needed."""
    python = ROOT / ".venv" / "bin" / "python"
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if sys.version_info >= (3, 10) and not missing:
        return
    if Path(sys.prefix) == ROOT / ".venv":
        sys.exit(f"{python} has no {' and no '.join(missing)}: remove .venv and start again")
    made = subprocess.run([str(ROOT / "scripts" / "venv"), "train"])
    if made.returncode != 0:
        sys.exit(made.returncode)
    os.execv(python, [str(python), *sys.argv])
