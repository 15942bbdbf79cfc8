"""The launchers: they run from the repository with nothing installed, and say what they take."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lib.repository import TRAIN

PACKAGES = sysconfig.get_path("purelib")
SHOW = """
import sys
sys.path.insert(0, {scripts!r})
from lib.repository import use_repository
use_repository(), use_repository()
import subprocess
code = "import fastproto as f, fastproto_kernels as k, fastproto_kernels.lib\\n"
code += "print(f.__file__, k.lib.__file__, k.__doc__)"
exec(code)
print(subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True).stdout.strip())
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """For a Python under -S: it has the dependencies without jsonargparse, and no installed fastproto."""
    (tmp_path / "jsonargparse.py").write_text("raise ImportError('not installed')")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), PACKAGES])}


def run(*command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-S", *command], env=env, capture_output=True, text=True)


def test_the_package_is_the_repository_s_here_and_in_children(root: Path) -> None:
    done = run("-c", SHOW.format(scripts=str(root / "scripts")))
    here, child = done.stdout.strip().splitlines()
    doc = (root / "kernels" / "__init__.py").read_text(encoding="utf-8").strip().strip('"')
    assert here == child == f"{root / 'fastproto/__init__.py'} {root / 'kernels/lib/__init__.py'} {doc}", done.stderr


def test_usage_is_printed_with_nothing_installed(root: Path, bare: dict[str, str]) -> None:
    for name, words in {
        "reproduce": ("table7", "figure2", "initial_assignment", "--published"),
        "gpu_check": ("--tune", "--dry-run"),
        "oldest_newest": ("oldest", "newest", "wheel"),
        "report": ("--check",),
    }.items():
        done = run(root / "scripts" / name, "--help", env=bare)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stdout for word in words), done.stdout


def test_an_unknown_part_is_named(root: Path) -> None:
    done = run(root / "scripts" / "oldest_newest", "eldest")
    assert done.returncode == 1 and done.stderr.startswith("there is no part 'eldest'")


def test_gpu_check_says_what_it_needs_and_runs_dry_with_nothing_installed(
    root: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("triton")
    command, bare = [root / "scripts" / "gpu_check", tmp_path / "out"], bare | {"CUDA_VISIBLE_DEVICES": ""}
    refused = run(*command, env=bare)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "needs a CUDA GPU" in refused.stderr
    done = run(*command, "--dry-run", "--steps", "machine", "functions", env=bare)
    assert done.returncode == 0, (tmp_path / "out" / "functions.log").read_text()
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["dry_run"] is True and report["steps"]["machine"]["results"]["triton"]
    found = report["steps"]["functions"]["results"]
    losses = [found[name]["within"] for name in found if name.startswith("uniformity_loss t")]
    assert len(losses) == 4 and all(losses) and "== functions: done" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for Python")
def test_without_torch_the_environment_is_made_first(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    made = f"printf '#!/bin/sh\\necho \"$@\"' > {python}; chmod +x {python}"
    (tmp_path / "scripts" / "venv").write_text(f"#!/bin/sh\n{made}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = run(tmp_path / "scripts" / "reproduce", "table7", "--out", "here", env=environment)
    assert done.stdout.split() == [str(tmp_path / "scripts" / "reproduce"), "table7", "--out", "here"], done.stderr


def without(module: str, folder: Path) -> dict[str, str]:
    """For a Python under -S that has every dependency but one."""
    (folder / "packages").mkdir()
    for entry in Path(PACKAGES).iterdir():
        if entry.name != module:
            (folder / "packages" / entry.name).symlink_to(entry)
    return os.environ | {"PYTHONPATH": str(folder / "packages")}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("script", ["reproduce", "kills"])
@pytest.mark.parametrize("module", ["torch", "scipy", "sklearn", "matplotlib"])
def test_a_missing_module_is_named_where_no_environment_can_be_made(module: str, script: str, tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(Path(__file__).parents[2] / "scripts", scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "venv").write_text("#!/bin/sh\nexit 7\n")
    done = run(scripts / script, "--help", env=without(module, tmp_path))
    assert done.returncode == 7 and done.stderr.count("\n") == 1
    assert f"has no {module}, and .venv, which would have it, could not be made" in done.stderr


@pytest.mark.parametrize("module", ["torch", "triton"])
@pytest.mark.parametrize("script", ["gpu_check", "inspect_kernels"])
def test_what_installs_nothing_names_what_is_missing(root: Path, module: str, script: str, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    arguments = [str(tmp_path / "out"), "--dry-run"] if script == "gpu_check" else []
    done = run(root / "scripts" / script, *arguments, env=without(module, tmp_path))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"has no {module}; " in done.stderr and "needs Python 3.10 or newer with torch and triton" in done.stderr


def test_what_is_required_is_what_is_installed(root: Path) -> None:
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r"^(?:dependencies|train) = \[$(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    names = {name for group in groups for name in re.findall(r'^  "([\w-]+)>=', group, re.MULTILINE)}
    modules = {"PyYAML": "yaml", "scikit-learn": "sklearn", "pillow": "PIL"}
    assert len(groups) == 2 and {modules.get(name, name) for name in names} == set(TRAIN)
