"""Puts the tables into the README, each between <!-- NAME --> and <!-- /NAME -->."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib import initial_assignment
from lib.report import assignment, gaussian_potential, gpu, head, prototypes
from lib.repository import NOT_MEASURED, RESULTS, ROOT

TABLES: dict[str, Callable[[Any], str]] = {  # by the name of the JSON file; Any: its content
    "gaussian_potential": gaussian_potential.table,
    "prototypes": prototypes.table,
    "head": head.table,
    "assignment": assignment.table,
    "initial_assignment": initial_assignment.table,
    "gpu": gpu.table,
}


def main(arguments: list[str], description: str, readme: Path = ROOT / "README.md", results: Path = RESULTS) -> int:
    if arguments not in ([], ["--check"]):
        print(description)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    before = readme.read_text(encoding="utf-8")
    after = filled(before, results)
    if arguments:
        return int(after != before)
    readme.write_text(after, encoding="utf-8")
    return 0


def filled(text: str, results: Path) -> str:
    """The text with every table made anew from the folder's files."""
    for name, table in TABLES.items():
        file = results / f"{name}.json"
        body = table(json.loads(file.read_text())) if file.is_file() else NOT_MEASURED
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        first, last = text.index(start) + len(start), text.index(end)
        text = text[:first] + body + "\n" + text[last:]
    return text
