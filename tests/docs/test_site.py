"""The documentation's site: it builds without a warning, asks nothing of other hosts, and knows every public name."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastproto

TOOLS = ("mkdocs", "material", "mkdocstrings")
missing = [name for name in TOOLS if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(missing), reason=f"the extra docs is not installed: no {', '.join(missing)}")
def test_the_site_builds_without_a_warning(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.relative_to(root / "docs").with_suffix(".html") for page in (root / "docs").rglob("*.md")}
    assert {page.relative_to(tmp_path / "site") for page in (tmp_path / "site").rglob("*.html")} - pages == {
        Path("404.html")
    }
    for page in pages:
        text = (tmp_path / "site" / page).read_text(encoding="utf-8")
        assert not re.findall(r'(?:src=|<link[^>]* href=)"https?://[^"]*"', text), f"{page} loads from another host"
        assert not re.findall(r":(?:meth|func|class|mod|data|attr):", text), f"{page} shows a role of a docstring"


def test_every_public_name_has_an_entry(root: Path) -> None:
    entries = "\n".join(page.read_text(encoding="utf-8") for page in (root / "docs" / "api").glob("*.md"))
    found = set(re.findall(r"^::: fastproto(?:\.\w+)*\.(\w+)$", entries, re.MULTILINE))
    assert not set(fastproto.__all__) - {"__version__"} - found


def test_no_page_is_longer_than_a_sitting(root: Path) -> None:
    pages = {page: 120 for page in (root / "docs").rglob("*.md")} | {root / "README.md": 140}
    long = {page.name: lines for page in pages if (lines := page.read_text("utf-8").count("\n")) > pages[page]}
    assert len(pages) > 10 and not long
