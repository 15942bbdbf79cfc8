"""The fenced blocks of the Markdown pages."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
NEEDS = re.compile(r"<!-- needs (\w+) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block, with the reason why it is not run where one stands before it."""

    page: Path
    line: int  # of its first line in the page, from 1
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def pages(root: Path) -> list[Path]:
    """Every page that is written by hand or by scripts/report."""
    return sorted([*root.glob("*.md"), *(root / "docs").glob("*.md")])


def blocks(page: Path) -> list[Block]:
    text, found = page.read_text(encoding="utf-8"), []
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start()) + 2
        found.append(Block(page, line, fence[1], fence[2], why_not(text[: fence.start()])))
    return found


def why_not(before: str) -> str | None:
    """Why the block behind this text is not run: ``<!-- not run: REASON -->``, or ``<!-- needs PACKAGE -->``."""
    if reason := NOT_RUN.search(before):
        return " ".join(reason[1].split())
    if (package := NEEDS.search(before)) and importlib.util.find_spec(package[1]) is None:
        return f"{package[1]} is not installed"
    return None
