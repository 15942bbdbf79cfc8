"""The tables of ``scripts/gpu_check``, whose results.json is kept as benchmarks/results/gpu.json."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from benchmarks.pages.formats import duration, listed, markdown, ratio
from lib.repository import NOT_MEASURED, Record

DIMS = (64, 128, 256, 512)
BESIDE = {
    "kernel medium": "`medium`",
    "kernel high": "`high`",
    "kernel higher": "`higher`",
    "kernel highest": "`highest`, Triton asked for",
    "gaussian_potential highest": "`highest`",
}


def not_measured_if_missing(table: Callable[[Record], str]) -> Callable[[Record], str]:
    """Makes a table say "not measured" if a step failed, was stopped or did not run."""

    @wraps(table)
    def complete(found: Record) -> str:
        try:
            return table(found)
        except (KeyError, IndexError) as missing:
            return f"{NOT_MEASURED}: {missing}"

    return complete


def results(found: Record, step: str) -> Record:
    held: Record = (found["steps"].get(step) or {}).get("results") or {}
    return held


def took(entry: Record) -> str:
    return duration(entry["median_ms"] / 1e3)


@not_measured_if_missing
def passes(found: Record) -> str:
    """Time of a pass and its share of the rate of a bfloat16 product, by precision and D."""
    speed, rows = results(found, "speed"), []
    for precision in ("medium", "high", "higher"):
        entries = [speed[f"{precision} D={dim}"] for dim in DIMS]
        rows.append([f"`{precision}`", *(f"{took(e)}, {100 * e['share_of_gemm']:.0f} %" for e in entries)])
    return markdown(["pass at C = 32,768", *(f"D = {dim}" for dim in DIMS)], rows)


@not_measured_if_missing
def peers(found: Record) -> str:
    """A pass beside the same computation in PyTorch."""
    measured = results(found, "peers")
    plain = {name: measured[name] for name in measured if name.startswith(("naive", "torch.compile"))}
    rows = []
    for key, name in BESIDE.items():
        if key in measured:
            cells = [f"{took(e)} ({ratio(e['median_ms'] / measured[key]['median_ms'])})" for e in plain.values()]
            rows.append([name, took(measured[key]), *cells])
    if not rows:
        return NOT_MEASURED
    return markdown(["pass at (16,384, 256)", "fastproto", *(f"{name} (ratio)" for name in plain)], rows)


@not_measured_if_missing
def solves(found: Record) -> str:
    """Assignments on the GPU, beside SciPy on the finished matrix."""
    dense, rows = results(found, "scipy"), []
    for name, cell in results(found, "assignment").items():
        if not name.startswith("C="):
            continue
        scipy = dense.get(name, NOT_MEASURED)
        times = [duration(cell["cold_s"]), duration(cell["unchanged_s"])]
        gap = f"{cell['relative_gap']:.0e}, {'certified' if cell['certified'] else 'not certified'}"
        last = scipy if isinstance(scipy, str) else duration(scipy)
        size = ", ".join(f"{letter} = {int(number):,}" for letter, number in (part.split("=") for part in name.split()))
        rows.append([size, *times, gap, f"{cell['extra_mib']:,.0f} MiB", last])
    if not rows:
        return NOT_MEASURED
    return markdown(["assignment", "cold", "unchanged", "relative gap", "extra memory", "SciPy, matrix given"], rows)


@not_measured_if_missing
def facts(found: Record) -> str:
    """The machine, single numbers, and the results of the checks."""
    machine, speed, head = (results(found, name) for name in ("machine", "speed", "head"))
    made, much = results(found, "prototypes"), results(found, "million")
    many = {part.removeprefix("many classes bf16: "): entry for part, entry in head.items()}
    return listed(
        [
            f"{machine['gpu']}, torch {machine['torch']}, Triton {machine['triton']}, commit {machine['commit'][:7]}.",
            f"Shares are of a bfloat16 product of 8192³, {speed['bf16_gemm_tflops']:.0f} TFLOP/s here; a pass counts "
            "as 4 C² D operations.",
            f"`highest` at (10,000, 512): {took(speed['gaussian_potential highest C=10000 D=512'])}.",
            f"A pass over a million points, D = 64: {took(much['one pass C=1000000 D=64'])}, "
            f"{much['peak_gib']:.1f} GiB.",
            f"10,000 prototypes, D = 512: {made['second_seconds']:.2f} s, {made['method'].split(', ')[1]}, L_uni "
            f"{made['uniformity']:.5f} (with compilation {made['first_seconds']:.1f} s).",
            "Loss, gradient and class means of 8,192 bfloat16 samples, D = 512, 100,000 classes, as a CUDA graph: "
            f"{took(many['both'])}. The sort by labels takes {took(many['sort'])} of it, the loss alone "
            f"{took(many['loss'])}. Loss and gradient compiled by torch, not as a graph: "
            f"{took(many['loss and gradient in torch, torch.compile'])}.",
            *checks(found),
        ]
    )


def checks(found: Record) -> list[str]:
    lines = [f"Tests on this GPU: {results(found, 'tests')['summary'].split(' in ')[0]}."]
    for tool in ("memcheck", "racecheck"):
        lines.append(f"{tool}: {results(found, 'sanitizer')[tool]['summary'][0].strip('= ')}.")
    return lines
