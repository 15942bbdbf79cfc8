"""The map of the house in CONTRIBUTING.md: every room is on it, and every file that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PLACES = ("", "fastproto", "tests")  # where a path may begin


@pytest.fixture
def named(root: Path) -> set[str]:
    """What stands between backticks or in a block, word by word."""
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`|^([\w./]+/\w+ .*)$", text, re.MULTILINE)
    return {word.partition("::")[0] for inline, line in quoted for word in (inline or line).split()}


def test_every_file_on_the_map_is_there(root: Path, named: set[str]) -> None:
    files = {word for word in named if re.fullmatch(r"[\w./]+\.(py|md|json|yml|cff|toml)|scripts/\w+", word)}
    files = {word for word in files if "NAME" not in word and word != "results.json"}
    assert len(files) > 25
    assert not {word for word in files if not any((root / place / word).exists() for place in PLACES)}


def test_every_room_is_on_the_map(root: Path, named: set[str]) -> None:
    rooms = {path.parent for path in (root / "fastproto").glob("*/__init__.py")}
    assert len(rooms) > 8
    for room in rooms | {root / "kernels", root / "benchmarks", root / "scripts" / "lib", root / "docs"}:
        path = room.relative_to(root)
        assert f"{path.as_posix()}/" in named or f"{path.name}/" in named, f"{path} is not in CONTRIBUTING.md"
