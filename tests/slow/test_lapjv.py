"""10,000 instances with many ties by method="lapjv" in a process of their own: none hangs, all are certified."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
PATIENCE = 3600  # seconds, for what takes some


@pytest.mark.skipif(importlib.util.find_spec("lapjv") is None, reason="the extra lapjv is not installed")
def test_ten_thousand_instances(root: Path) -> None:
    command = [sys.executable, "-m", "tests.assignment.tie_heavy", "0", "10000"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=PATIENCE)
    print(f"\nlapjv: {done.stdout}")
    assert done.returncode == 0, done.stderr
