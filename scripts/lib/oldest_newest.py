"""Runs the tests in environments with the oldest and the newest dependencies, and the wheel in an empty one."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from lib.repository import ROOT
from lib.wheel import CORE, EVERY_MODULE, NO_KERNELS, commands_of, count_modules, run_isolated

PYTHONS = {"oldest": ("3.10", "lowest-direct"), "newest": ("3.13", "highest")}
SHOWN = ("torch", "numpy", "scipy", "numba", "lightning")


def main(arguments: list[str], description: str) -> int:
    if {"-h", "--help"} & set(arguments):
        print(description)
        return 0
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parts, further = arguments[:cut] or [*PYTHONS, "wheel"], arguments[cut + 1 :]
    if unknown := set(parts) - {*PYTHONS, "wheel"}:
        sys.exit(
            f"there is no part {sorted(unknown)[0]!r}; expected oldest, newest or wheel: pytest's arguments go after --"
        )
    os.chdir(ROOT)
    uv = find_uv()
    try:
        rows = [check_wheel(uv) if part == "wheel" else check_suite(uv, part, further) for part in parts]
    except subprocess.CalledProcessError as error:
        sys.exit(f"ended with exit code {error.returncode}: {' '.join(map(str, error.cmd))}")
    print()
    for _, line in rows:
        print(line)
    return int(any(failed for failed, _ in rows))


def find_uv() -> str:
    """The path of uv, installed if needed: unlike pip, it can resolve to the lowest versions."""
    if found := shutil.which("uv"):
        return found
    tool = ROOT / ".venv-tools/bin/uv"
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / ".venv-tools"], check=True)
        subprocess.run([tool.with_name("python"), "-m", "pip", "install", "--quiet", "uv>=0.5"], check=True)
    return str(tool)


def find_python(part: str) -> str:
    """The interpreter of a part that runs; a version manager may put one on PATH that does not."""
    version = PYTHONS[part][0]
    if named := os.environ.get(f"PYTHON_{part.upper()}"):
        return named
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for python in [shutil.which(f"python{version}"), *sorted(glob.glob(f"{pyenv}/versions/{version}*/bin/python"))]:
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return version  # uv searches further places


def environment(uv: str, part: str, what: list[str], *, resolution: str, again: bool = False) -> Path:
    """The Python of .venv-PART, with exactly ``what`` and its dependencies installed."""
    folder = ROOT / f".venv-{part}"
    if again or not (folder / "bin/python").exists():
        python = find_python(part if part in PYTHONS else "newest")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, folder], check=True)
    print(f"installing {' '.join(what)} into {folder.name} ({resolution} versions)", file=sys.stderr, flush=True)
    command = [uv, "pip", "install", "--quiet", "--upgrade", "--exact", "--resolution", resolution]
    subprocess.run([*command, "--python", folder / "bin/python", *what], check=True)
    return folder / "bin/python"


def check_suite(uv: str, part: str, further: list[str]) -> tuple[bool, str]:
    """(whether the default test suite failed, a summary line)."""
    python = environment(uv, part, ["--editable", ".[test]"], resolution=PYTHONS[part][1])
    show = "import sys, importlib.metadata as m; print(sys.version.split()[0], *map(m.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", show, *SHOWN], capture_output=True, text=True, check=True)
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
    """(whether a check of the installed wheel failed, a summary line)."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        built, empty = Path(folder, "dist"), Path(folder, "empty")
        empty.mkdir()
        # uv builds the wheel from the sdist, so that a file missing from the sdist is missing from the wheel
        subprocess.run([uv, "build", "--quiet", "--out-dir", built, ROOT], check=True)
        (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
        modules = count_modules(wheel)
        python = environment(uv, "wheel", [str(wheel)], resolution="highest", again=True)
        done = [run_isolated(python, NO_KERNELS + CORE, empty, "-W", "error")]
        python = environment(uv, "wheel", [f"{wheel}[train]", "pytest"], resolution="highest")
        done.append(run_isolated(python, EVERY_MODULE, empty))
        for command in commands_of(wheel):
            done.append(run(python.with_name(command), "--help", folder=empty))
        shutil.copy(ROOT / "tests/package/test_public_api.py", empty)
        done.append(run(python, "-m", "pytest", "-q", "-W", "error", folder=empty))
        sizes = f"sdist {sdist.stat().st_size >> 10} KiB, wheel {wheel.stat().st_size >> 10} KiB, {modules} modules"
    faults = [each for each in done if each.returncode != 0]
    for each in faults:
        print(
            f"{' '.join(map(str, each.args))} ended with {each.returncode}:\n{each.stdout}{each.stderr}",
            file=sys.stderr,
        )
    outcome = "failed" if faults else "installed into an empty environment, public API and console scripts hold"
    return bool(faults), f"wheel: {outcome} ({sizes}, {time.monotonic() - began:.0f} s)"


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
