#!/usr/bin/env python3
"""Writes the README's tables from benchmarks/results/*.json; nothing else writes them.

usage: scripts/report [--check]

Each table stands between <!-- NAME --> and <!-- /NAME -->. --check writes nothing and exits with 1 where the README
differs from the results. What a file does not hold is printed as "not measured".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import initial_assignment as study

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NONE = "not measured"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}×" if value < 10 else f"{value:.0f}×"


def milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def machine(facts: dict[str, Any]) -> str:
    threads = "one thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    return f"{facts['processor']}, {facts['capability']}, {threads}, torch {facts['torch']}"


def gaussian_potential(found: dict[str, Any]) -> str:
    names = {
        "symmetric_loop": "plain symmetric loop",
        "naive": "autograd of `W Wᵀ`",
        "highest": "`highest`",
        "high": "`high`",
        "medium": "`medium`",
    }
    rows = []
    for key, name in names.items():
        cells = [name]
        for cell in found["sizes"]:
            got = cell["providers"].get(key)
            if got is None:
                cells += [NONE, NONE]
                continue
            error = cell["gradient_error"].get(key)
            cells += [milliseconds(got["median_s"]), ratio(got["baseline_over_this"])]
            cells[-1] += "" if error is None else f", error {error:.0e}"
        rows.append(cells)
    sizes = [f"C = {cell['C']:,}, D = {cell['D']}" for cell in found["sizes"]]
    floors = ", ".join(f"{milliseconds(cell['float32_floor_s'])} at D = {cell['D']}" for cell in found["sizes"])
    extra = found["extra_peak_mib_10000_128"]
    return (
        table(["full pass: potential and pull", *(part for size in sizes for part in (size, "against the loop"))], rows)
        + f"\n\n{machine(found['machine'])}. The products alone, at a 2048³ float32 product's rate, take {floors}: "
        f"the loop is that near to what float32 allows. Extra memory at (10,000, 128): {extra['ours']:.0f} MiB, naive "
        f"{extra['naive']:.0f} MiB."
    )


def prototypes(found: dict[str, Any]) -> str:
    rows = found["rows"]

    def pick(what: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["what"] == what]

    near = {(row["classes"], row["dim"]): row for row in pick("passes to 1 %")}
    sharp = {(row["classes"], row["dim"]): row for row in pick("max cosine")}
    flat = {(row["classes"], row["dim"]): row for row in pick("L_uni")}
    lines = []
    for size in sorted(flat.keys() | sharp.keys()):
        u, m, p = flat.get(size), sharp.get(size), near.get(size)
        lines.append(
            [
                f"({size[0]:,}, {size[1]})",
                NONE if u is None else f"{u['reached']:.5f}",
                NONE if u is None else u["note"].split(",")[0].removeprefix("bound "),
                NONE if p is None else f"{p['reached']:.0f}",
                NONE if m is None else f"{m['reached']:.4f}",
                NONE if m is None else m["note"].split("bound ")[1].split(",")[0],
            ]
        )
    head = ["(C, D)", "L_uni, t = 2", "lower bound", "passes to 1 %", "max cosine, `max_cosine`", "lower bound"]
    return table(head, lines)


def head(found: dict[str, Any]) -> str:
    rows = []
    for cell in found["cells"]:
        got = cell["providers"]
        line = [f"{cell['C']:,}", milliseconds(got["ours"]["median_s"])]
        for name in ("authors", "softmax"):
            line.append(
                NONE if name not in got else f"{milliseconds(got[name]['median_s'])} ({ratio(got[name]['over_ours'])})"
            )
        rows.append(line)
    top = found["prediction"]
    title = f"loss, gradient, class means; B = {found['cells'][0]['B']:,}, D = {found['cells'][0]['D']}: C"
    return (
        table([title, "fastproto", "the authors' formula in torch", "softmax cross-entropy"], rows)
        + f"\n\n{machine(found['machine'])}. From 1,000 to 100,000 classes the step takes "
        f"{found['step_100k_over_1k']:.1f} times as long, because rows then come from the memory: reading the batch's "
        f"prototypes alone takes {milliseconds(found['gather_s']['100000'])} instead of "
        f"{milliseconds(found['gather_s']['1000'])}. The {top['k']} nearest of {top['C']:,} prototypes for "
        f"{top['B']:,} samples, D = {top['D']}: {ratio(top['speedup'])} the speed of matmul and topk "
        f"({ratio(top.get('speedup_two_threads'))} in two threads) in "
        f"{100 * top['share_of_memory']:.1f} % of their extra memory."
    )


def assignment(found: dict[str, Any]) -> str:
    solvers = ("ours", "ours_unchanged", "lapjv", "lapx", "scipy")
    rows = []
    for cell in found["cells"]:
        got = cell["providers"]
        line = [f"{cell['kind']}, {cell['C']:,}", cell["method"].replace("_", " ")]
        for name in solvers:
            seconds = milliseconds(got[name]["median_s"]) if name in got else NONE
            line.append(
                seconds
                if name.startswith("ours") or name not in got
                else f"{seconds} ({ratio(got[name]['over_ours'])})"
            )
        rows.append(line)
    text = [f"{machine(found['machine'])}; D = {found['cells'][0]['D']}; every answer of fastproto is certified."]
    for run in found["sequences"]:
        text.append(
            f"{run['renewals']} renewals in a row at C = {run['C']:,} ({run['name']}), {run['unchanged']} of them "
            f"without a change: {ratio(run['speedup'])} as fast as a dense solver each time, "
            f"{ratio(run['unchanged_speedup'])} where nothing changed, "
            f"{ratio(run.get('repeated_speedup'))} for the last one asked again."
        )
    for run in found["large"]:
        gap = (
            f"relative gap {run['relative_gap']:.0e}"
            if run["certified"]
            else f"not certified, {run['relative_gap']:.0e}"
        )
        text.append(f"C = {run['C']:,}, D = {run['D']}: {milliseconds(run['seconds'])}, {gap}.")
    fits = [
        f"{name} C^({fit['exponent']:.2f} ± {fit['error']:.2f}) from {min(fit['sizes']):,} to {max(fit['sizes']):,}"
        for name, fit in found.get("exponents", {}).items()
    ]
    text.append(f"Fitted cost on the clustered means: {', '.join(fits) or NONE}.")
    text.append(
        f"Extra memory at (20,000, 128): {found['extra_peak_mib_20000_128']:.0f} MiB; the float32 matrix is 1,526 MiB."
    )
    head = ["class means, C", "method of `auto`", "fastproto", "unchanged", "lapjv", "lapx", "SciPy"]
    return table(head, rows) + "\n\n" + " ".join(text)


def gpu(found: dict[str, Any]) -> str:
    steps = {name: step["results"] for name, step in found["steps"].items()}
    facts, speed, peers, pairs = (steps[name] for name in ("machine", "speed", "peers", "assignment"))

    def took(entry: dict[str, Any]) -> str:
        return milliseconds(entry["median_ms"] / 1e3)

    dims = [64, 128, 256, 512]
    passes = [
        [f"`{p}`", *(f"{took(e)}, {100 * e['share_of_gemm']:.0f} %" for e in (speed[f"{p} D={d}"] for d in dims))]
        for p in ("medium", "high", "higher")
    ]
    naive = {name: peers[name] for name in peers if name.startswith(("naive", "torch.compile"))}
    names = {f"kernel {p}": f"`{p}`" for p in ("medium", "high", "higher")}
    names |= {"kernel highest": "`highest`, Triton asked for", "gaussian_potential highest": "`highest`"}
    beside = [
        [name, took(peers[key])]
        + [f"{took(e)} ({ratio(e['median_ms'] / peers[key]['median_ms'])})" for e in naive.values()]
        for key, name in names.items()
        if key in peers
    ]
    solved = []
    for name, cell in pairs.items():
        if not name.startswith("C="):
            continue
        scipy = steps["scipy"].get(name, NONE)
        times = [milliseconds(cell["cold_s"]), milliseconds(cell["unchanged_s"])]
        gap = f"{cell['relative_gap']:.0e}, {'certified' if cell['certified'] else 'not certified'}"
        dense = scipy if isinstance(scipy, str) else milliseconds(scipy)
        solved.append(
            [name.replace(" ", ", ").replace("=", " = "), *times, gap, f"{cell['extra_mib']:,.0f} MiB", dense]
        )
    head, training, made, much = (steps[name] for name in ("head", "training", "prototypes", "million"))
    step = head["many classes bf16: both"]
    checks = [f"tests: {steps['tests']['summary'].split(' in ')[0]}"]
    checks += [f"{tool}: {steps['sanitizer'][tool]['summary'][0].strip('= ')}" for tool in ("memcheck", "racecheck")]
    text = (
        f"{facts['gpu']}, torch {facts['torch']}, Triton {facts['triton']}, commit {facts['commit'][:7]}. "
        f"Shares are of a bfloat16 product of 8192³, {speed['bf16_gemm_tflops']:.0f} TFLOP/s here, 4 C² D counted. "
        f"`highest` at (10,000, 512): {took(speed['gaussian_potential highest C=10000 D=512'])}. 10,000 prototypes in 512 "
        f"dimensions: {made['second_seconds']:.2f} s, {made['method'].split(', ')[1]}, L_uni {made['uniformity']:.5f} "
        f"(with compilation {made['first_seconds']:.1f} s). A pass over a million points in 64 dimensions: "
        f"{took(much['one pass C=1000000 D=64'])}, {much['peak_gib']:.1f} GiB. Loss, gradient and class means of 8,192 "
        f"bfloat16 samples, D = 512, 100,000 classes, as CUDA graphs: {took(step)}, of which the sort by labels takes "
        f"{took(head['many classes bf16: sort'])} and the loss alone {took(head['many classes bf16: loss'])}; the loss and "
        f"gradient compiled by torch, not as a graph, {took(head['many classes bf16: loss and gradient in torch, torch.compile'])}. "
        f"Checks on this GPU: {'; '.join(checks)}."
    )
    tables = (
        table(["pass at C = 32,768", *(f"D = {d}" for d in dims)], passes),
        table(["pass at (16,384, 256)", "fastproto", *(f"{name} (ratio)" for name in naive)], beside),
        table(["assignment", "cold", "unchanged", "relative gap", "extra memory", "SciPy, matrix given"], solved),
    )
    return "\n\n".join([*tables, text])


TABLES: dict[str, Callable[[Any], str]] = {
    "gaussian_potential": gaussian_potential,
    "prototypes": prototypes,
    "head": head,
    "assignment": assignment,
    "initial_assignment": study.table,
    "gpu": gpu,
}


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    file = ROOT / "README.md"
    before = text = file.read_text(encoding="utf-8")
    for name, write in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        results = RESULTS / f"{name}.json"
        body = write(json.loads(results.read_text())) if results.is_file() else NONE
        first, last = text.index(start) + len(start), text.index(end)
        text = text[:first] + body + "\n" + text[last:]
    if arguments:
        return int(text != before)
    file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
