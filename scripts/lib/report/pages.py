"""Finds the marks of tables in README.md and docs/*.md and fills them from the results.

A table stands between ``<!-- report NAME -->`` and ``<!-- /report NAME -->``, each on its own line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKED = re.compile(r"^<!-- report (\w+) -->\n(.*?)^<!-- /report \1 -->$", re.DOTALL | re.MULTILINE)
OPENING = re.compile(r"^<!-- report (\w+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Report:
    """A table and its results."""

    files: tuple[str, ...]  # JSON files in benchmarks/results, without .json, or folders; the first must exist
    write: Callable[..., str]  # takes the contents of those that exist, in this order
    partial: bool = False  # whether any of them is enough; write then takes None for one that is missing


def pages(root: Path) -> list[Path]:
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def marks(text: str) -> list[str]:
    """The names of the tables of a page, in order."""
    return OPENING.findall(text)


def filled(text: str, reports: Mapping[str, Report], results: Path) -> str:
    """The page with every table rewritten; a table whose first file is missing stays as it is.

    Raises:
        ValueError: a mark that is not closed, or that names no report.
    """
    closed = [match[1] for match in MARKED.finditer(text)]
    if closed != marks(text):
        raise ValueError(f"marks {marks(text)}, of which {closed} are closed; expected <!-- /report NAME --> for each")
    unknown = sorted(set(closed) - reports.keys())
    if unknown:
        raise ValueError(f"no report is named {', '.join(unknown)}; expected one of {', '.join(reports)}")

    def anew(match: re.Match[str]) -> str:
        name, found = match[1], found_for(reports[match[1]], results)
        if found is None:
            return match[0]
        return f"<!-- report {name} -->\n{reports[name].write(*found)}\n<!-- /report {name} -->"

    return MARKED.sub(anew, text)


def found_for(report: Report, results: Path) -> list[Any] | None:
    """What ``report.write`` takes; None where what it needs does not exist."""
    if not report.partial:
        return read(report.files, results)
    found = [contents(results, name) for name in report.files]
    return found if any(content is not None for content in found) else None


def read(names: tuple[str, ...], results: Path) -> list[Any] | None:
    """The contents of the files that exist; None if the first does not."""
    found = [contents(results, name) for name in names]
    return None if found[0] is None else [content for content in found if content is not None]


def contents(results: Path, name: str) -> Any:
    """The content of ``name``.json, or of every file below the folder ``name``; None if there is neither."""
    folder, file = results / name, results / f"{name}.json"
    if folder.is_dir():
        return [json.loads(record.read_text(encoding="utf-8")) for record in sorted(folder.rglob("*.json"))]
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
