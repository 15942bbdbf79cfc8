"""What the compiled kernels hold, read from their machine code on any machine: no spills, tensor cores, shared memory.

The variants that a GPU user meets first, on Hopper at every D and on the other chips at the widest; the whole table is
scripts/inspect_kernels --check. scripts/gpu_check is run dry.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler runs on Linux")
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
PRODUCTS = ("gaussian_potential", "top_scores", "log_sum_exp")
# Bytes of stack. Tile sizes are chosen by what Triton 3.6 to 3.8 make of them; others spill a few registers in some.
STACK = 0 if (3, 6) <= tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 8) else 32
TENSOR_CORES = {80: "mma", 86: "mma", 89: "mma", 90: "wgmma", 100: "tcgen05", 120: "mma"}


def inspect(root: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(root / "scripts" / "inspect_kernels"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def check(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert [problem for problem in row["problems"] if not (STACK and problem.startswith("spills"))] == [], row
        assert row["stack"] <= STACK and (STACK or row["spills"] == 0) and row["registers"] >= 16, row
        assert row["shared_kib"] <= SHARED_KIB[row["sm"]]
        assert row["loads16"] > 0 and row["floor_ms"] > 0
        if row["kernel"] in PRODUCTS:
            assert row[TENSOR_CORES[row["sm"]]] > 0


def test_hopper_at_every_dimension(root: Path) -> None:
    rows = inspect(root, "--arch", "90", "--kernel", "gaussian_potential", "--variant", "medium fp16", "high fp16")
    assert [row["D"] for row in rows] == [64, 64, 128, 128, 256, 256, 512, 512]
    check(rows)


def test_every_chip_and_kernel_at_the_widest(root: Path) -> None:
    rows = inspect(root, "--dim", "512", "--variant", "weighted bf16", "medium bf16", "two fp16", "fp32")
    assert len(rows) == 39 and len({row["kernel"] for row in rows}) == 11
    check(rows)
    loader = importlib.machinery.SourceFileLoader("inspect_kernels", str(root / "scripts" / "inspect_kernels"))
    spec = importlib.util.spec_from_loader("inspect_kernels", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["inspect_kernels"] = module  # its dataclass looks itself up
    loader.exec_module(module)
    head, *lines = module.table(rows).splitlines()
    assert head.split()[:4] == ["kernel", "variant", "sm", "D"]
    assert len(lines) == 39 and all(line.rstrip().endswith("none") for line in lines if "spills (" not in line)


def test_chips_with_less_shared_memory(root: Path) -> None:
    """The tiles of an A100 fit the 99 KiB of sm_86, 89 and 120 too, where they are largest."""
    chips = ("--arch", "86", "89", "120")
    rows = inspect(root, *chips, "--dim", "128", "--kernel", "gaussian_potential", "--variant", "medium fp16")
    rows += inspect(root, *chips, "--dim", "128", "--kernel", "top_scores", "--variant", "higher")
    assert [row["sm"] for row in rows] == [86, 89, 120, 86, 89, 120]
    check(rows)


def test_sweeps_narrow_and_wide(root: Path) -> None:
    rows = inspect(
        root, "--arch", "90", "--dim", "64", "512", "--kernel", *PRODUCTS[1:], "--variant", "higher", "high "
    )
    assert len(rows) == 12
    check(rows)


def test_sweeps_of_the_assignment_on_every_chip(root: Path) -> None:
    """The precisions that the solver asks for, at the D of its benchmark and at the widest."""
    lists = inspect(root, "--dim", "128", "512", "--kernel", "top_scores", "--variant", "higher")
    prices = inspect(root, "--dim", "128", "512", "--kernel", "log_sum_exp", "--variant", "medium")
    assert len(lists) == len(prices) == 6
    check(lists + prices)


def test_rows_up_to_4096_columns_stay_in_registers(root: Path) -> None:
    rows = inspect(root, "--arch", "90", "--dim", "64", "4096", "--kernel", "ipm_loss", "update_class_means")
    assert len(rows) == 16
    check(rows)


def test_the_loss_with_the_means_and_a_counter_at_every_dimension_of_blackwell(root: Path) -> None:
    """One program keeps four rows, beside the counter of nan_policy="skip": here it spilled first."""
    rows = inspect(root, "--arch", "100", "--kernel", "update_class_means", "--variant", "fp32 with the loss, counting")
    assert [row["D"] for row in rows] == [64, 128, 256, 512, 1024, 2048, 4096]
    check(rows)


def test_gpu_check_says_what_it_needs_and_runs_dry(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "gpu_check"), str(tmp_path)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "needs a CUDA GPU" in refused.stderr
    done = subprocess.run(
        [*command, "--dry-run", "--steps", "million", "functions"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    steps = json.loads((tmp_path / "results.json").read_text())["steps"]
    assert steps["million"]["status"] == "done" and steps["million"]["results"]["finite"] is True
    losses = [found for name, found in steps["functions"]["results"].items() if name.startswith("uniformity_loss t")]
    assert len(losses) == 4 and all(found["within"] for found in losses)
    assert "== million: done" in done.stdout
