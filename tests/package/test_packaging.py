"""What a build of the package holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_build_holds_every_module(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build_py", "--build-lib", str(tmp_path / "lib")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {path.relative_to(tmp_path / "lib") for path in (tmp_path / "lib").rglob("*") if path.is_file()}
    homes = {"fastproto": "fastproto", "kernels": "fastproto_kernels"}
    modules = {
        home / file.relative_to(root / folder)
        for folder, home in ((name, Path(installed)) for name, installed in homes.items())
        for file in (root / folder).rglob("*.py")
    }
    assert len(modules) > 50
    assert built == modules | {Path("fastproto/py.typed")}
