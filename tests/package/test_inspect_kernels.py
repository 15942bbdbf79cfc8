"""What the compiled kernels hold, read from their machine code on any machine: no spills, tensor cores, shared memory.

The variants that a GPU user meets first, on Hopper at every D and on the other chips at the widest; the whole table is
scripts/inspect_kernels --check. scripts/gpu_check is run dry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler runs on Linux")
SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
PRODUCTS = ("gaussian_potential", "top_scores", "log_sum_exp")
# Bytes of stack. Tile sizes are chosen by what Triton 3.6 to 3.8 make of them; others spill a few registers in some.
STACK = 0 if (3, 6) <= tuple(map(int, triton.__version__.split(".")[:2])) <= (3, 8) else 32
TENSOR_CORES = {80: "mma", 86: "mma", 89: "mma", 90: "wgmma", 100: "tcgen05", 120: "mma"}

Rows = list[dict[str, Any]]


class Part(NamedTuple):
    """Variants to compile; no kernels: all of them. ``names`` are how the names of the variants begin."""

    kernels: tuple[str, ...]
    chips: tuple[int, ...]
    dims: tuple[int, ...]
    names: tuple[str, ...]

    def rows(self, measured: Rows) -> Rows:
        return [
            row
            for row in measured
            if (not self.kernels or row["kernel"] in self.kernels)
            and row["sm"] in self.chips
            and row["D"] in self.dims
            and row["variant"].startswith(self.names)
        ]


SHIPPED, SMALL_CHIPS = (80, 90, 100), (86, 89, 120)
HOPPER = Part(("gaussian_potential",), (90,), (64, 128, 256, 512), ("medium fp16", "high fp16"))
WIDEST = Part((), SHIPPED, (512,), ("weighted bf16", "medium bf16", "two fp16", "fp32"))
SMALL_POTENTIAL = Part(("gaussian_potential",), SMALL_CHIPS, (128,), ("medium fp16",))
SMALL_LISTS = Part(("top_scores",), SMALL_CHIPS, (128,), ("higher",))
SWEEPS = Part(PRODUCTS[1:], (90,), (64, 512), ("higher", "high "))
LISTS = Part(("top_scores",), SHIPPED, (128, 512), ("higher",))
PRICES = Part(("log_sum_exp",), SHIPPED, (128, 512), ("medium",))
ROWS = Part(("ipm_loss", "update_class_means", "head_step"), (90,), (64, 4096), ("fp32", "bf16"))
COUNTING = Part(("head_step",), (100,), (64, 128, 256, 512, 1024, 2048, 4096), ("fp32 counting",))
POWERS = Part(("ipm_loss", "head_step"), (80, 100), (64, 512), ("p=1/2", "any p"))
PARTS = (HOPPER, WIDEST, SMALL_POTENTIAL, SMALL_LISTS, SWEEPS, LISTS, PRICES, ROWS, COUNTING, POWERS)
# Compiles the variants of all parts, each once, and prints their rows
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lib import inspect_kernels
inspect_kernels.load_kernels()
chosen = {}
for part in json.loads(sys.argv[2]):
    kernels, chips, dims, names = map(tuple, part)
    for one in inspect_kernels.choose(list(kernels) or inspect_kernels.kernel_names(), chips, dims, names):
        chosen[one.arch, one.variant.kernel, one.variant.name, one.variant.dim] = one
print(json.dumps(inspect_kernels.measure_all(list(chosen.values()), jobs=2)))
"""


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """One process for all parts, once for all workers of a test run."""
    scripts = Path(__file__).parents[2] / "scripts"
    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "inspected.json"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            command = [sys.executable, "-c", PROGRAM, str(scripts), json.dumps(PARTS)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            place.write_text(done.stdout)
    rows: Rows = json.loads(place.read_text())
    return rows


def check(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert [problem for problem in row["problems"] if not (STACK and problem.startswith("spills"))] == [], row
        assert row["stack"] <= STACK and (STACK or row["spills"] == 0) and row["registers"] >= 16, row
        assert row["shared_kib"] <= SHARED_KIB[row["sm"]]
        assert row["loads16"] > 0 and row["floor_ms"] > 0
        if row["kernel"] in PRODUCTS:
            assert row[TENSOR_CORES[row["sm"]]] > 0


def test_hopper_at_every_dimension(measured: Rows) -> None:
    rows = HOPPER.rows(measured)
    assert sorted(row["D"] for row in rows) == [64, 64, 128, 128, 256, 256, 512, 512]
    check(rows)


def test_every_chip_and_kernel_at_the_widest(measured: Rows) -> None:
    rows = WIDEST.rows(measured)
    assert len(rows) == 39 and len({row["kernel"] for row in rows}) == 12
    check(rows)


def test_chips_with_less_shared_memory(measured: Rows) -> None:
    """The tiles of an A100 fit the 99 KiB of sm_86, 89 and 120 too, where they are largest."""
    for part in (SMALL_POTENTIAL, SMALL_LISTS):
        rows = part.rows(measured)
        assert sorted(row["sm"] for row in rows) == [86, 89, 120]
        check(rows)


def test_sweeps_narrow_and_wide(measured: Rows) -> None:
    rows = SWEEPS.rows(measured)
    assert len(rows) == 8
    check(rows)


def test_sweeps_of_the_assignment_on_every_chip(measured: Rows) -> None:
    """The precisions that the solver asks for, at the D of its benchmark and at the widest."""
    for part in (LISTS, PRICES):
        rows = part.rows(measured)
        assert len(rows) == 6
        check(rows)


def test_rows_up_to_4096_columns_stay_in_registers(measured: Rows) -> None:
    rows = ROWS.rows(measured)
    assert len(rows) == 16
    check(rows)


def test_the_head_step_with_a_counter_at_every_dimension_of_blackwell(measured: Rows) -> None:
    """One program holds four rows beside the counter of nan_policy="skip": the first to spill."""
    rows = COUNTING.rows(measured)
    assert sorted(row["D"] for row in rows) == [64, 128, 256, 512, 1024, 2048, 4096]
    check(rows)


def test_the_other_powers_of_the_loss(measured: Rows) -> None:
    """They sum ‖z - w‖² as well and hold more scalars per row than Eq. 6."""
    rows = POWERS.rows(measured)
    assert len(rows) == 48 and {row["variant"] for row in rows} >= {"p=1/2 bf16", "any p fp32 counting"}
    check(rows)


def test_the_table_from_any_folder(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "inspect_kernels"), "--arch", "90", "--dim", "64", "--check"]
    done = subprocess.run([*command, "--kernel", "add_parts"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, line = done.stdout.splitlines()
    assert head.split()[:5] == ["kernel", "variant", "sm", "D", "tile"]
    assert line.split()[:5] == ["add_parts", "fp32", "90", "64", "16x64"] and line.split()[-1] == "none"
    unknown = subprocess.run([*command, "--variant", "fp1"], capture_output=True, text=True)
    assert unknown.returncode == 2 and "no variant has this name" in unknown.stderr
