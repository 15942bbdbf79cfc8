"""The assignment against lapjv, lapx and SciPy, all given Q and W: their times include forming the C×C matrix.

``pytest benchmarks/bench_assignment.py`` writes results/assignment.json: one thread, the solvers in turn, ratios
within one run. FASTPROTO_BENCH_SLOW=1 adds 50,000 and 100,000 classes (minutes), and the class means of two training
runs on 2,900 and 1,000 kinds of printed characters (about fifteen minutes). These runs have seed 1; constants that
depend on real class means were tuned on runs with seed 0.

torch-linear-assignment is not listed: on the CPU it calls SciPy, which is; its own solver is for CUDA tensors.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from common import RESULTS, Record, exponent, exponent_error, extra_peak, interleaved, machine, summary
from fastproto.assignment import Assignment, assign

SLOW = bool(os.environ.get("FASTPROTO_BENCH_SLOW"))
DIM = 128
COLD = [1_000, 2_000, 5_000, 10_000]
ALONE = [20_000, *([50_000] if SLOW else [])]  # sizes that take the peers minutes or too much memory
EASY = [200, 500, 1_000, 5_000]
RENEWALS = 50
REAL = [(2_900, 128, 10), (1_000, 64, 12)]  # classes, dimension, epochs of two renewals each
Pair = tuple[Tensor, Tensor]


def instance(kind: str, c: int, d: int, seed: int = 0) -> Pair:
    """Class means and prototypes; the means are ``clustered``, as if untrained, or ``easy``, each near a prototype."""
    generator = torch.Generator().manual_seed(seed)

    def directions(rows: int) -> Tensor:
        return normalize(torch.randn(rows, d, generator=generator), dim=1)

    prototypes = directions(c)
    if kind == "easy":
        means = 0.7 * prototypes[torch.randperm(c, generator=generator)] + 0.7 * directions(c)
    else:
        groups = torch.randint(0, max(c // 20, 2), (c,), generator=generator)
        means = directions(1) + directions(max(c // 20, 2))[groups] + 0.7 * directions(c)
    return normalize(means, dim=1), prototypes


def with_lapjv(means: Tensor, prototypes: Tensor) -> object:
    from lapjv import lapjv

    return lapjv((-(means @ prototypes.T)).numpy())[0]


def with_lapx(means: Tensor, prototypes: Tensor) -> object:
    from lap import lapjv

    return lapjv((-(means @ prototypes.T)).numpy())[1]


def with_scipy(means: Tensor, prototypes: Tensor) -> object:
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment((means @ prototypes.T).numpy(), maximize=True)[1]


def peers(c: int) -> dict[str, Callable[[Tensor, Tensor], object]]:
    """The installed solvers; SciPy only up to 5,000 classes, where it takes ten seconds."""
    found: dict[str, Callable[[Tensor, Tensor], object]] = {}
    if importlib.util.find_spec("lapjv"):
        found["lapjv"] = with_lapjv
    if importlib.util.find_spec("lap"):
        found["lapx"] = with_lapx
    if c <= 5_000:
        found["scipy"] = with_scipy
    return found


def facts(found: Assignment) -> Record:
    return {
        "method": found.method,
        "reason": found.reason,
        "certified": found.certified,
        "relative_gap": found.relative_gap,
        "passes": found.passes,
    }


def cold(kind: str, c: int, seconds: float) -> Record:
    """``auto`` and each peer on one instance, and ``auto`` again with ``previous``."""
    means, prototypes = instance(kind, c, DIM)
    found = assign(means, prototypes)
    columns = with_lapjv(means, prototypes) if importlib.util.find_spec("lapjv") else with_scipy(means, prototypes)
    best = float((means.double() * prototypes.double()[torch.as_tensor(columns, dtype=torch.int64)]).sum())
    providers: dict[str, Callable[[], object]] = {
        "ours": lambda: assign(means, prototypes),
        "ours_unchanged": lambda: assign(means, prototypes, previous=found),
    }
    for name, solve in peers(c).items():
        providers[name] = partial(solve, means, prototypes)
    times = interleaved(providers, seconds)
    ours = statistics.median(times["ours"])
    return {
        "kind": kind,
        "C": c,
        "D": DIM,
        **facts(found),
        "objective_minus_peer": found.objective - best,
        "providers": {n: summary(t) | {"over_ours": statistics.median(t) / ours} for n, t in times.items()},
    }


def alone(c: int) -> Record:
    """``auto`` on one clustered instance, once."""
    means, prototypes = instance("clustered", c, DIM)
    start = time.perf_counter()
    found = assign(means, prototypes)
    once = {"ours": summary([time.perf_counter() - start])}
    return {"kind": "clustered", "C": c, "D": DIM, **facts(found), "providers": once}


def fitted(cells: list[Record], name: str) -> Record:
    """seconds ~ C^exponent over the sizes at which this solver ran."""
    points = [(cell["C"], cell["providers"][name]["median_s"]) for cell in cells if name in cell["providers"]]
    sizes, seconds = [c for c, _ in points], [s for _, s in points]
    return {
        "sizes": sizes,
        "seconds": seconds,
        "exponent": exponent(sizes, seconds),
        "error": exponent_error(sizes, seconds),
    }


def drifting(c: int, d: int, renewals: int, seed: int = 3) -> tuple[Tensor, list[Tensor]]:
    """Prototypes, and class means that begin clustered and wander towards the prototypes of the best assignment."""
    means, prototypes = instance("clustered", c, d, seed)
    generator, sequence, noise = torch.Generator().manual_seed(seed), [], torch.zeros(c, d)
    speed = 0.3 + 1.4 * torch.rand(c, 1, generator=generator)
    for step in range(renewals):
        noise = 0.7 * noise + 0.7 * torch.randn(c, d, generator=generator) / d**0.5
        sequence.append(normalize(means + (0.6 * 2 ** (-step / 8) + 0.05) * noise, dim=1))
        target = prototypes[torch.as_tensor(with_scipy_or_lapjv(sequence[-1], prototypes), dtype=torch.int64)]
        pull = 0.08 * speed * (1 - 2 ** (-step / 7))
        means = normalize(means + pull * (target - means), dim=1)
    return prototypes, sequence


def with_scipy_or_lapjv(means: Tensor, prototypes: Tensor) -> object:
    return (with_lapjv if importlib.util.find_spec("lapjv") else with_scipy)(means, prototypes)


def sequence(name: str, prototypes: Tensor, means: list[Tensor]) -> Record:
    """Every renewal warm-started from the last, against a dense solver, in turn."""
    previous: Assignment | None = None
    ours, theirs, changed, methods = [], [], [], []
    for q in means:
        start = time.perf_counter()
        found = assign(q, prototypes, previous=previous)
        ours.append(time.perf_counter() - start)
        assert found.certified
        start = time.perf_counter()
        with_scipy_or_lapjv(q, prototypes)
        theirs.append(time.perf_counter() - start)
        changed.append(None if found.changed is None else found.changed / len(q))
        methods.append(found.method)
        previous = found
    again = interleaved(
        {
            "ours": lambda: assign(means[-1], prototypes, previous=previous),
            "dense": lambda: with_scipy_or_lapjv(means[-1], prototypes),
        },
        2.0,
    )
    still = [i for i, share in enumerate(changed) if share == 0]
    return {
        "name": name,
        "C": len(prototypes),
        "D": prototypes.shape[1],
        "renewals": len(means),
        "ours_s": sum(ours),
        "dense_s": sum(theirs),
        "speedup": sum(theirs) / sum(ours),
        "changed": changed,
        "methods": methods,
        "unchanged": len(still),
        "repeated_speedup": statistics.median(again["dense"]) / statistics.median(again["ours"]),
        "unchanged_speedup": statistics.median(theirs[i] / ours[i] for i in still) if still else None,
    }


def real_means(classes: int, dim: int, epochs: int, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
    """Prototypes and class means at each renewal of a training run on printed characters."""
    from fastproto.training import TrainConfig, fit
    from fastproto.training.renewals import read_class_means

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig.from_dict(
            {
                "data": {"name": "glyphs", "num_classes": classes},
                "head": {"dim": dim, "effort": "best", "save_class_means": True, "renewals_per_epoch": 2},
                "out": str(Path(folder) / "run"),
                "progress": False,
                "accelerator": "cpu",
                "seed": seed,
            }
        )
        config.optim.epochs = epochs
        saved = read_class_means(fit(config).folder)
    return torch.as_tensor(saved["prototypes"][0]), [torch.as_tensor(q) for q in saved["class_means"]]


def large(c: int, d: int) -> Record:
    means, prototypes = instance("clustered", c, d)
    start = time.perf_counter()
    found = assign(means, prototypes)
    return {"C": c, "D": d, "seconds": time.perf_counter() - start, **facts(found)}


def memory(c: int, d: int) -> float:
    setup = (
        "from bench_assignment import assign, instance\n"
        f"means, prototypes = instance('clustered', {c}, {d}); small = instance('clustered', 3000, {d})"
    )
    return extra_peak(setup, "assign(*small)", "assign(means, prototypes)")


def test_assignment() -> None:
    torch.set_num_threads(1)
    assign(*instance("clustered", 3_000, DIM))  # compiles the loops that are not in the disk cache
    file = RESULTS / "assignment.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    cells = [cold("clustered", c, 6.0) for c in COLD] + [cold("easy", c, 2.0) for c in EASY]
    clustered = [cell for cell in cells if cell["kind"] == "clustered"] + [alone(c) for c in ALONE]
    fits = {name: fitted(clustered, name) for name in ("ours", *peers(0))}
    result: Record = {"machine": machine(), "cells": cells, "exponents": fits}
    result["sequences"] = [sequence("drifting", *drifting(5_000, DIM, RENEWALS))]
    if SLOW:
        result["sequences"] += [sequence("glyphs", *real_means(*run)) for run in REAL]
        result["large"] = [large(50_000, 64), large(100_000, 64)]
    else:  # keeps the last results of the slow cells
        result["sequences"] += [s for s in before.get("sequences", []) if s["name"] == "glyphs"]
        result["large"] = before.get("large", [])
    result["extra_peak_mib_20000_128"] = memory(20_000, 128)
    result["not_measured"] = ["a GPU", "torch-linear-assignment, which is SciPy on the processor"]
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    assert all(cell["certified"] for cell in clustered)
    for cell in cells:
        assert cell["certified"] and abs(cell["objective_minus_peer"]) <= 1e-6 * cell["C"]
    assert result["extra_peak_mib_20000_128"] < 8 * 20_000**2 / 2**20 / 4  # a float64 matrix is 3,052 MiB
