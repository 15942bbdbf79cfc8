"""The wheel: built here, installed into an empty environment, and imported there, module by module."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import fastproto
from lib.wheel import EVERY_MODULE, NO_KERNELS, count_modules, run_isolated

BUILD = "from setuptools import build_meta; build_meta.build_wheel('dist')"
SOURCES = ("fastproto", "kernels", "benchmarks", "pyproject.toml", "setup.py", "README.md", "LICENSE")


def build(root: Path, folder: Path) -> Path:
    """The wheel, made from a copy: the build leaves files beside the sources."""
    folder.mkdir()
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, folder)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment that holds the wheel and no dependencies; nothing is downloaded."""
    has_pip = any(True for _ in importlib.metadata.distributions(name="pip"))
    venv.create(folder, with_pip=not has_pip, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python] if has_pip else [python, "-m", "pip"]
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-compile"]
    done = subprocess.run([*pip, "install", *options, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.skipif(sys.platform == "win32", reason="an environment has its Python elsewhere there")
def test_every_module_of_the_wheel_is_importable(root: Path, tmp_path: Path) -> None:
    wheel = build(root, tmp_path / "sources")
    modules = count_modules(wheel)
    assert modules > 50
    python, empty = install(wheel, tmp_path / "environment"), tmp_path / "empty"
    empty.mkdir()
    home = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "environment")}))
    folders = {path.name for path in home.iterdir() if path.suffix != ".dist-info"}
    assert folders - {"pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth"} == {
        "fastproto",
        "fastproto_benchmarks",
        "fastproto_kernels",
    }
    done = run_isolated(python, NO_KERNELS + "import fastproto; print(fastproto.__version__)", empty)
    assert done.stdout.strip() == fastproto.__version__, done.stderr
    # The dependencies are this environment's. A path in a .pth file comes last, and .pth files behind it are not read,
    # so that an editable installation there adds nothing.
    dependencies = {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    (home / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    done = run_isolated(python, EVERY_MODULE, empty)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == modules


def test_the_version_is_in_one_place(root: Path) -> None:
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project and not re.search(r"^version = \"", project, re.MULTILINE)
    (cited,) = re.findall(r"^version: (.+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited == fastproto.__version__
