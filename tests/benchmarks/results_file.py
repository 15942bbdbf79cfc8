"""JSON as pytest-benchmark writes it for the benchmarks, with few rows or with all rows of a scale."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import benchmarks
from benchmarks.ceilings import COPY
from benchmarks.comparison import Case, Comparison, Scale, cases, reason_not_to_run

MACHINE = {
    "processor": "P",
    "device": "P",
    "cores": 2,
    "capability": "AVX2",
    "versions": "Python 3.11, torch 2.9",
    "fastproto_commit": "abc",
    "scale": "small",
    "load_before": 0.1,
}


def row(op: str, size: dict[str, Any], provider: str, seconds: list[float], threads: int = 1, **info: Any) -> Any:
    known = {"op": op, "size": size, "provider": provider, "threads": threads, "flops": 0.0, "bytes": 0.0}
    return {"extra_info": known | info, "stats": {"data": seconds}}


def contents(rows: list[Any], absent: list[Any] | None = None) -> dict[str, Any]:
    return {"benchmarks": rows, "not_measured": absent or [], "fastproto": MACHINE}


def comparisons() -> list[Comparison]:
    """Every comparison of the benchmarks."""
    names = sorted(file.stem for file in Path(benchmarks.__path__[0]).glob("bench_*.py"))
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return [value for module in modules for value in vars(module).values() if isinstance(value, Comparison)]


def whole(scale: Scale) -> dict[str, Any]:
    """All rows of a scale on a CPU with two threads, with invented times."""
    rows, absent = [], []
    for comparison in comparisons():
        for case in cases(comparison, scale, (1, 2), "cpu"):
            known = {"op": comparison.op, "size": case.size, "provider": case.provider, "threads": case.threads}
            reason = reason_not_to_run(case, scale, "cpu")
            if reason is not None:
                absent.append(known | {"reason": reason})
                continue
            seconds = [1e-6 * case.size.get("C", 1) * (1 + 0.01 * number) / case.threads for number in range(5)]
            work = comparison.work(case.size) if comparison.work else None
            facts = invented_facts(case)
            if work is not None:
                facts |= {"flops": work.flops, "bytes": work.bytes}
            rows.append(row(comparison.op, case.size, case.provider, seconds, case.threads, **facts))
    return contents(rows, absent)


def invented_facts(case: Case) -> dict[str, Any]:
    op, size = case.comparison.op, case.size
    if op == "ceilings":
        return {"bytes": 1e9} if case.provider == COPY else {"flops": 2.0 * size["n"] ** 3}
    if op == "renewals":
        return {"moved": [None, 0.5, 0.0, 0.0, 0.1]}
    if op == "training_step":
        return {"batches_per_epoch": 20}
    quality = {"uniformity": -3.0, "uniformity_bound": -3.1, "max_cosine": 0.5, "max_cosine_bound": 0.4}
    searched = quality | {"passes": 10, "method": "lbfgs", "passes_to_one_percent": 5.0}
    return {"extra_mib": 3.0} | (searched if op == "estimate_prototypes" else {})
