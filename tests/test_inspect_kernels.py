"""What the compiled kernels hold, read from their machine code on any machine: no spills, tensor cores, shared memory.

The variants that a GPU user meets first, on Hopper at every D and on the other chips at the widest; the whole table is
scripts/inspect_kernels --check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler runs on Linux")


def inspect(root: Path, *arguments: str) -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, str(root / "scripts" / "inspect_kernels"), "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize(
    ("arch", "dims", "limit"), [("90", ("64", "128", "256", "512"), 227), ("80", ("512",), 163), ("100", ("512",), 227)]
)
def test_half_precision_variants(root: Path, arch: str, dims: tuple[str, ...], limit: int) -> None:
    arguments = ["--kernel", "gaussian_potential", "--arch", arch, "--dim", *dims]
    rows = inspect(
        root, *arguments, "--variant", "medium fp16", "high fp16", *(["higher bf16"] if arch == "90" else [])
    )
    assert len(rows) == len(dims) * (3 if arch == "90" else 2)
    for row in rows:
        assert row["problems"] == [], row
        assert row["spills"] == row["stack"] == 0 and row["registers"] > 32
        assert row["shared_kib"] <= limit
        assert row[{"80": "mma", "90": "wgmma", "100": "tcgen05"}[arch]] > 0
        assert row["loads16"] > 0
        assert row["floor_ms"] > 0


def test_float32_and_the_step(root: Path) -> None:
    rows = inspect(root, "--arch", "90", "--dim", "128", "--variant", "highest", "fp32", "two fp16")
    assert {row["kernel"] for row in rows} == {"gaussian_potential", "prepare_operand", "sphere_step"}
    assert all(row["problems"] == [] for row in rows), rows


def test_the_table_names_every_column(root: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "inspect_kernels"), "--kernel", "sphere_step", "--arch", "90"]
    done = subprocess.run([*command, "--dim", "64", "--check"], capture_output=True, text=True, check=True)
    head, line = done.stdout.splitlines()
    assert len(head.split()) == len(line.split()) == 17
    assert line.split()[-1] == "none"


def test_gpu_check_says_what_it_needs_and_runs_dry(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "gpu_check"), str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and "needs a CUDA GPU" in refused.stderr
    done = subprocess.run([*command, "--dry-run", "--steps", "machine", "peers"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    assert {step["status"] for step in report["steps"].values()} == {"done"}
    assert "kernel medium" in report["steps"]["peers"]["results"]
