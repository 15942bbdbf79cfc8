"""The table of benchmarks/bench_gaussian_potential.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, machine, markdown, ratio

NAMES = {
    "symmetric_loop": "plain symmetric loop",
    "naive": "autograd of `W Wᵀ`",
    "highest": "`highest`",
    "high": "`high`",
    "medium": "`medium`",
}


def table(found: Record) -> str:
    rows = []
    for key, name in NAMES.items():
        cells = [name]
        for cell in found["sizes"]:
            got = cell["providers"].get(key)
            if got is None:
                cells += [NOT_MEASURED, NOT_MEASURED]
                continue
            error = cell["gradient_error"].get(key)
            cells += [duration(got["median_s"]), ratio(got["baseline_over_this"])]
            cells[-1] += "" if error is None else f", error {error:.0e}"
        rows.append(cells)
    sizes = [f"C = {cell['C']:,}, D = {cell['D']}" for cell in found["sizes"]]
    head = ["full pass: potential and pull", *(part for size in sizes for part in (size, "against the loop"))]
    floors = ", ".join(f"{duration(cell['float32_floor_s'])} at D = {cell['D']}" for cell in found["sizes"])
    extra = found["extra_peak_mib_10000_128"]
    return markdown(head, rows) + (
        f"\n\n{machine(found['machine'])}. The products alone, at a 2048³ float32 product's rate, take {floors}: "
        f"the loop is that near to what float32 allows. Extra memory at (10,000, 128): {extra['ours']:.0f} MiB, naive "
        f"{extra['naive']:.0f} MiB."
    )
