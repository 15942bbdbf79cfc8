"""The README's tables are those of the results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_readme_shows_the_results(root: Path) -> None:
    found = subprocess.run([sys.executable, root / "scripts" / "report", "--check"], capture_output=True, text=True)
    assert found.returncode == 0, "README.md differs from benchmarks/results: run scripts/report"
