#!/usr/bin/env python3
"""Runs the tests on the oldest and on the newest dependencies, and from a built wheel; figures come last.

usage: scripts/oldest_newest [oldest] [newest] [wheel] [-- ARGUMENT ...]

- oldest: Python 3.10 with the lowest version of each dependency that pyproject.toml claims (torch 2.9.0, ...)
- newest: Python 3.13 with the newest release of each
- wheel: sdist and wheel are built; the wheel is installed into an empty environment and used from an empty folder
All three unless some are named; what follows -- goes to pytest. Environments are .venv-oldest, .venv-newest and
.venv-wheel; they are made or brought up to date first (several GB the first time: PyTorch is large). Pythons are found
on the PATH or among those of pyenv and uv; PYTHON_OLDEST and PYTHON_NEWEST name others. All of it takes 20 minutes.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = {"oldest": ("3.10", "lowest-direct"), "newest": ("3.13", "highest")}
SHOWN = ("torch", "numpy", "scipy", "numba", "lightning")

# Runs in the empty environment, from an empty folder: what the package promises with its core dependencies alone.
CORE = """
import importlib.metadata, importlib.resources, importlib.util, sys
import torch, fastproto, fastproto_kernels
assert importlib.util.find_spec("kernels") is None, "the wheel installs a top-level package kernels"
assert importlib.resources.files("fastproto").joinpath("py.typed").is_file(), "py.typed is missing"
assert "site-packages" in fastproto.__file__, fastproto.__file__
assert importlib.metadata.version("fastproto") == fastproto.__version__
for name in fastproto.__all__:
    getattr(fastproto, name)
torch.manual_seed(0)
head = fastproto.PrototypeHead(12, 4, prototypes=torch.nn.functional.normalize(torch.randn(12, 4), dim=1))
head(torch.randn(36, 4), torch.arange(36) % 12)
assert head.reassign().certified and sorted(head.assignment.tolist()) == list(range(12))
assert not {"lightning", "torchvision", "jsonargparse"} & set(sys.modules)
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parts, further = arguments[:cut] or [*PYTHONS, "wheel"], arguments[cut + 1 :]
    if unknown := set(parts) - {*PYTHONS, "wheel"}:
        sys.exit(f"there is no part {sorted(unknown)[0]!r}; expected oldest, newest or wheel, and pytest's after --")
    os.chdir(ROOT)
    uv = find_uv()
    rows = [check_wheel(uv) if part == "wheel" else check_suite(uv, part, further) for part in parts]
    print()
    for _, line in rows:
        print(line)
    return int(any(failed for failed, _ in rows))


def find_uv() -> str:
    """uv resolves to the lowest versions, which pip cannot."""
    if found := shutil.which("uv"):
        return found
    tool = ROOT / ".venv-tools/bin/uv"
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv-tools"], check=True)
        subprocess.run([tool.with_name("python"), "-m", "pip", "install", "--quiet", "uv>=0.5"], check=True)
    return str(tool)


def find_python(part: str) -> str:
    """The interpreter of a part; one that a version manager put on the PATH may not run."""
    version = PYTHONS[part][0]
    if named := os.environ.get(f"PYTHON_{part.upper()}"):
        return named
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for python in [shutil.which(f"python{version}"), *sorted(glob.glob(f"{pyenv}/versions/{version}*/bin/python"))]:
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return version  # uv knows more places


def environment(uv: str, part: str, what: list[str], *, resolution: str, again: bool = False) -> Path:
    """The Python of .venv-PART with exactly ``what`` installed; quick when that is already so."""
    folder = ROOT / f".venv-{part}"
    if again or not (folder / "bin/python").exists():
        python = find_python(part if part in PYTHONS else "newest")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, folder], check=True)
    print(f"installing {' '.join(what)} into {folder.name} ({resolution} versions)", file=sys.stderr, flush=True)
    command = [uv, "pip", "install", "--quiet", "--upgrade", "--exact", "--resolution", resolution]
    subprocess.run([*command, "--python", folder / "bin/python", *what], check=True)
    return folder / "bin/python"


def check_suite(uv: str, part: str, further: list[str]) -> tuple[bool, str]:
    """Whether the default suite failed, and a line of figures."""
    python = environment(uv, part, ["--editable", ".[test]"], resolution=PYTHONS[part][1])
    code = "import sys, importlib.metadata as m; print(sys.version.split()[0], *map(m.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", code, *SHOWN], capture_output=True, text=True, check=True)
    versions = [f"{name} {number}" for name, number in zip(("Python", *SHOWN), done.stdout.split(), strict=True)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        options = ["-n", "auto", "--dist", "worksteal", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        code = subprocess.run([python, "-m", "pytest", *options, *further]).returncode
        counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
        if report.exists():
            suite = ET.parse(report).getroot().find("testsuite")
            counts = {key: int(suite.get(key, 0)) for key in counts} if suite is not None else counts
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    figures = f"{passed} passed, {failed} failed, {counts['skipped']} skipped, {time.monotonic() - began:.0f} s"
    return code != 0, f"{part}: {figures} ({', '.join(versions)})"


def check_wheel(uv: str) -> tuple[bool, str]:
    """The same for sdist and wheel, and what is promised of an installation."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "dist")
        # the wheel is built from the sdist: what the sdist lacks, the wheel lacks
        subprocess.run([uv, "build", "--quiet", "--out-dir", built, ROOT], check=True)
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        modules = check_files(wheel)
        empty = Path(folder, "empty")
        empty.mkdir()
        python = environment(uv, "wheel", [str(wheel)], resolution="highest", again=True)
        failed = subprocess.run([python, "-I", "-W", "error", "-c", CORE], cwd=empty).returncode != 0
        python = environment(uv, "wheel", [f"{wheel}[train]", "pytest"], resolution="highest")
        shutil.copy(ROOT / "tests/test_public_api.py", empty)
        failed |= subprocess.run([python, "-m", "pytest", "-q", "-W", "error"], cwd=empty).returncode != 0
        scripts = ("fastproto-train", "fastproto-prototypes", "fastproto-predict")
        for script in scripts:
            done = subprocess.run([python.with_name(script), "--help"], cwd=empty, capture_output=True, text=True)
            if done.returncode != 0 or "usage" not in done.stdout.lower():
                failed = True
                print(f"{script} --help ended with {done.returncode}: {done.stderr}", file=sys.stderr)
        sizes = f"sdist {sdist.stat().st_size >> 10} KiB, wheel {wheel.stat().st_size >> 10} KiB, {modules} modules"
    outcome = "failed" if failed else "installed into an empty environment, public API and console scripts hold"
    return failed, f"wheel: {outcome} ({sizes}, {time.monotonic() - began:.0f} s)"


def check_files(wheel: Path) -> int:
    """How many modules the wheel holds; it is an error if these are not all of the repository's."""
    homes = {"fastproto": "fastproto", "kernels": "fastproto_kernels"}
    expected = {f"{homes[at]}/{f.relative_to(ROOT / at)}" for at in homes for f in (ROOT / at).rglob("*.py")}
    names = set(zipfile.ZipFile(wheel).namelist())
    found = {name for name in names if not name.split("/")[0].endswith(".dist-info")} - {"fastproto/py.typed"}
    if found != expected or "fastproto/py.typed" not in names:
        sys.exit(f"the wheel has other files than the repository: {sorted(found ^ expected) or 'py.typed is missing'}")
    return len(found)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"ended with exit code {error.returncode}: {' '.join(map(str, error.cmd))}")
