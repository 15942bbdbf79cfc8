"""The table of benchmarks/bench_gaussian_potential.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, listed, machine, markdown, ratio

NAMES = {
    "symmetric_loop": "plain symmetric loop",
    "naive": "autograd of `W Wᵀ`",
    "highest": "`highest`",
    "high": "`high`",
    "medium": "`medium`",
}


def table(found: Record) -> str:
    sizes = [f"C = {cell['C']:,}, D = {cell['D']}" for cell in found["sizes"]]
    head = ["full pass: potential and pull", *(part for size in sizes for part in (size, "against the loop"))]
    floors = ", ".join(f"{duration(cell['float32_floor_s'])} at D = {cell['D']}" for cell in found["sizes"])
    extra = found["extra_peak_mib_10000_128"]
    facts = [
        f"{machine(found['machine'])}.",
        f"The matrix products alone, at the rate of a 2048³ float32 product: {floors}.",
        f"Extra memory at C = 10,000, D = 128: {extra['ours']:.0f} MiB, with autograd {extra['naive']:.0f} MiB.",
    ]
    return f"{markdown(head, [row(found, key, name) for key, name in NAMES.items()])}\n\n{listed(facts)}"


def row(found: Record, key: str, name: str) -> list[str]:
    cells = [name]
    for cell in found["sizes"]:
        got = cell["providers"].get(key)
        if got is None:
            cells += [NOT_MEASURED, NOT_MEASURED]
            continue
        error = cell["gradient_error"].get(key)
        cells += [duration(got["median_s"]), ratio(got["baseline_over_this"])]
        cells[-1] += "" if error is None else f", error {error:.0e}"
    return cells
