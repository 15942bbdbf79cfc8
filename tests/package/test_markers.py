"""The markers ``fast`` and ``slow``: what is listed exists, and every room has a fast test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LISTED = re.compile(r'^    "(tests/[^":]+)(?:::(\w+))?",$', re.MULTILINE)


@pytest.fixture
def listed(root: Path) -> list[tuple[str, str]]:
    """Files, and tests or the empty name for all of them, that tests/conftest.py takes out of the fast ones."""
    return LISTED.findall((root / "tests" / "conftest.py").read_text(encoding="utf-8"))


def test_what_is_listed_as_long_exists(root: Path, listed: list[tuple[str, str]]) -> None:
    assert len(listed) > 10 and listed == sorted(listed)
    for file, test in listed:
        text = (root / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"


def test_every_room_has_a_fast_file(root: Path, listed: list[tuple[str, str]]) -> None:
    whole = {file for file, test in listed if not test}
    rooms = {file.parent for file in (root / "tests").glob("*/test_*.py")} - {root / "tests" / "slow"}
    assert len(rooms) > 8
    for room in rooms:
        assert {file.relative_to(root).as_posix() for file in room.glob("test_*.py")} - whole, room.name


def test_the_slow_folder_is_slow(root: Path) -> None:
    files = sorted((root / "tests" / "slow").glob("test_*.py"))
    assert files
    for file in files:
        assert re.search(r"^pytestmark = .*pytest\.mark\.slow", file.read_text(encoding="utf-8"), re.MULTILINE), file
