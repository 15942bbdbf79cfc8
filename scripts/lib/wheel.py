"""Checks of a built wheel, before and after its installation."""

from __future__ import annotations

import subprocess
import zipfile
from configparser import ConfigParser
from pathlib import Path

from lib.repository import ROOT

HOMES = {"fastproto": "fastproto", "kernels": "fastproto_kernels", "benchmarks": "fastproto_benchmarks"}
"""Folders of the repository and the packages that they become."""

# The programs run from an empty folder, in an environment with the wheel and its dependencies.
CORE = """
import importlib.metadata, importlib.resources, sys
import torch, fastproto, fastproto_kernels
assert importlib.resources.files("fastproto").joinpath("py.typed").is_file(), "py.typed is missing"
assert importlib.metadata.version("fastproto") == fastproto.__version__
for name in fastproto.__all__:
    getattr(fastproto, name)
torch.manual_seed(0)
head = fastproto.PrototypeHead(12, 4, prototypes=torch.nn.functional.normalize(torch.randn(12, 4), dim=1))
head(torch.randn(36, 4), torch.arange(36) % 12)
assert head.reassign().certified and sorted(head.assignment.tolist()) == list(range(12))
assert not {"lightning", "torchvision", "jsonargparse"} & set(sys.modules)
"""
EVERY_MODULE = """
import importlib, importlib.util, pathlib, pkgutil, sys
OTHERS = ("pytorch_metric_learning", "transformers")  # of fastproto.compat, which may be missing
count = 0
for name in ("fastproto", "fastproto_kernels", "fastproto_benchmarks"):
    package = importlib.import_module(name)
    for found in [name, *(each.name for each in pkgutil.walk_packages(package.__path__, name + "."))]:
        try:
            importlib.import_module(found)
        except ModuleNotFoundError as error:
            if error.name not in OTHERS or not found.startswith("fastproto.compat."):
                raise
        file = pathlib.Path(importlib.util.find_spec(found).origin)
        assert file.is_relative_to(sys.prefix), f"{file} is not in this environment"
        count += 1
print(count)
"""
NO_KERNELS = """
import importlib.util
for name in ("kernels", "benchmarks"):
    assert importlib.util.find_spec(name) is None, f"the wheel installs a top-level package {name}"
"""


def count_modules(wheel: Path) -> int:
    """The number of modules in the wheel.

    Raises:
        ValueError: the files of the wheel differ from those of the repository.
    """
    expected = {f"{HOMES[at]}/{f.relative_to(ROOT / at).as_posix()}" for at in HOMES for f in (ROOT / at).rglob("*.py")}
    data = {"fastproto/py.typed", *(f"fastproto/recipes/{f.name}" for f in (ROOT / "fastproto/recipes").glob("*.yaml"))}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    if odd := names ^ (expected | data):
        raise ValueError(f"wheel and repository differ in {sorted(odd)}; expected the same files")
    return len(expected)


def commands_of(wheel: Path) -> list[str]:
    """The names of the console scripts of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        points = ConfigParser()
        points.optionxform = str  # type: ignore[assignment,method-assign]  # keeps the case of names, as documented
        points.read_string(archive.read(name).decode())
    return list(points["console_scripts"])


def run_isolated(python: Path, code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in its environment alone: without PYTHONPATH and the current folder."""
    return subprocess.run([python, "-I", *options, "-c", code], cwd=folder, capture_output=True, text=True)
