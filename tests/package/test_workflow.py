"""What runs elsewhere: the workflow, the hooks and the lists of pyproject.toml name files that exist."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

PYTHON = "#!/usr/bin/env python3"


def commands(root: Path) -> list[str]:
    """The lines that the jobs of the workflow run."""
    workflow: dict[str, Any] = yaml.safe_load((root / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    return [line for step in steps for line in step.get("run", "").splitlines()]


def test_the_workflow_runs_what_is_there(root: Path) -> None:
    found = commands(root)
    assert {".ci/run", "scripts/test --slow"} < set(found)
    assert any(line.startswith("scripts/oldest_newest") for line in found)
    for line in found:
        assert os.access(root / line.split()[0], os.X_OK), f"{line}: there is no such command"


def test_the_workflow_names_the_supported_pythons_and_a_day(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["suite"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", workflow["on"]["schedule"][0]["cron"])
    assert "schedule" in workflow["jobs"]["slow"]["if"]
    lowest = re.findall(r'requires-python = ">=(.+)"', (root / "pyproject.toml").read_text(encoding="utf-8"))
    assert lowest == ["3.10"]


def test_the_hooks_run_what_is_there(root: Path) -> None:
    (repository,) = yaml.safe_load((root / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert {entry[2] for entry in entries} == {"ruff", "mypy"}
    for script, extra, *_ in entries:
        assert os.access(root / script, os.X_OK) and extra == "test"


def test_every_script_is_linted_and_typed(root: Path) -> None:
    """Python without a suffix is seen only where it is named."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    files = [file for file in (root / "scripts").iterdir() if file.is_file()]
    launchers = {file.name for file in files if file.read_text(encoding="utf-8").startswith(PYTHON)}
    assert len(launchers) >= 5
    for name in ("extend-include", "files"):
        (listed,) = re.findall(rf"^{name} = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
        assert set(re.findall(r'"scripts/(\w+)"', listed)) - {"lib"} == launchers, name
