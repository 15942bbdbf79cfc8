"""Files of every kind that is read, damaged at random: a valid result or one sentence that names the file.

Each kind runs in a process of its own, for a fixed time: no mutated file may end it, execute anything, or take more
memory than a stated multiple of the file (for pictures, of the pixels that Pillow's limit allows).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import reading_mutated
from .kinds_of_files import KINDS

pytestmark = pytest.mark.slow

SECONDS = 30  # of mutations, for each kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks of memory are read from Linux's /proc")
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-m", reading_mutated.__name__, kind, str(tmp_path), str(SECONDS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(root)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=10 * SECONDS, check=False
    )
    assert done.returncode == 0, f"{kind} ended with {done.returncode}; its last file is in {tmp_path}\n{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{kind}: {found['mutations']:,} files, {found['read']:,} read, {found['refused']:,} refused, at most "
        f"{found['peak'] / 2**20:.0f} MiB, slowest {found['slowest']} s"
    )
    assert found["mutations"] >= 100 and found["refused"] > 0
