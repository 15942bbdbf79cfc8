"""The tables of ``scripts/gpu_check``: its results.json is kept as benchmarks/results/gpu.json."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, markdown, ratio

DIMS = (64, 128, 256, 512)
BESIDE = {
    "kernel medium": "`medium`",
    "kernel high": "`high`",
    "kernel higher": "`higher`",
    "kernel highest": "`highest`, Triton asked for",
    "gaussian_potential highest": "`highest`",
}


def table(found: Record) -> str:
    """Of a step that failed, was stopped or did not run, what it did not measure is said."""
    steps: dict[str, Record] = defaultdict(dict)
    steps |= {name: step["results"] for name, step in found["steps"].items() if step is not None}
    parts: tuple[Callable[[], str], ...] = (
        lambda: passes(steps["speed"]),
        lambda: peers(steps["peers"]),
        lambda: solves(steps["assignment"], steps["scipy"]),
        lambda: text(steps),
    )
    return "\n\n".join(map(or_not_measured, parts))


def or_not_measured(part: Callable[[], str]) -> str:
    try:
        return part()
    except (KeyError, IndexError) as missing:
        return f"{NOT_MEASURED}: {missing}"


def took(entry: Record) -> str:
    return duration(entry["median_ms"] / 1e3)


def passes(speed: Record) -> str:
    rows = []
    for precision in ("medium", "high", "higher"):
        entries = [speed[f"{precision} D={dim}"] for dim in DIMS]
        rows.append([f"`{precision}`", *(f"{took(e)}, {100 * e['share_of_gemm']:.0f} %" for e in entries)])
    return markdown(["pass at C = 32,768", *(f"D = {dim}" for dim in DIMS)], rows)


def peers(found: Record) -> str:
    plain = {name: found[name] for name in found if name.startswith(("naive", "torch.compile"))}
    rows = []
    for key, name in BESIDE.items():
        if key in found:
            cells = [f"{took(e)} ({ratio(e['median_ms'] / found[key]['median_ms'])})" for e in plain.values()]
            rows.append([name, took(found[key]), *cells])
    if not rows:
        return NOT_MEASURED
    return markdown(["pass at (16,384, 256)", "fastproto", *(f"{name} (ratio)" for name in plain)], rows)


def solves(found: Record, dense: Record) -> str:
    rows = []
    for name, cell in found.items():
        if not name.startswith("C="):
            continue
        scipy = dense.get(name, NOT_MEASURED)
        times = [duration(cell["cold_s"]), duration(cell["unchanged_s"])]
        gap = f"{cell['relative_gap']:.0e}, {'certified' if cell['certified'] else 'not certified'}"
        last = scipy if isinstance(scipy, str) else duration(scipy)
        rows.append([name.replace(" ", ", ").replace("=", " = "), *times, gap, f"{cell['extra_mib']:,.0f} MiB", last])
    if not rows:
        return NOT_MEASURED
    return markdown(["assignment", "cold", "unchanged", "relative gap", "extra memory", "SciPy, matrix given"], rows)


def text(steps: dict[str, Record]) -> str:
    facts, speed, head, made, much = (steps[name] for name in ("machine", "speed", "head", "prototypes", "million"))
    many = {part.removeprefix("many classes bf16: "): entry for part, entry in head.items()}
    checks = [f"tests: {steps['tests']['summary'].split(' in ')[0]}"]
    checks += [f"{tool}: {steps['sanitizer'][tool]['summary'][0].strip('= ')}" for tool in ("memcheck", "racecheck")]
    return (
        f"{facts['gpu']}, torch {facts['torch']}, Triton {facts['triton']}, commit {facts['commit'][:7]}. "
        f"Shares are of a bfloat16 product of 8192³, {speed['bf16_gemm_tflops']:.0f} TFLOP/s here, 4 C² D counted. "
        f"`highest` at (10,000, 512): {took(speed['gaussian_potential highest C=10000 D=512'])}. "
        f"10,000 prototypes in 512 dimensions: {made['second_seconds']:.2f} s, {made['method'].split(', ')[1]}, "
        f"L_uni {made['uniformity']:.5f} (with compilation {made['first_seconds']:.1f} s). "
        f"A pass over a million points in 64 dimensions: {took(much['one pass C=1000000 D=64'])}, "
        f"{much['peak_gib']:.1f} GiB. Loss, gradient and class means of 8,192 bfloat16 samples, D = 512, 100,000 "
        f"classes, as CUDA graphs: {took(many['both'])}, of which the sort by labels takes {took(many['sort'])} and "
        f"the loss alone {took(many['loss'])}; the loss and gradient compiled by torch, not as a graph, "
        f"{took(many['loss and gradient in torch, torch.compile'])}. Checks on this GPU: {'; '.join(checks)}."
    )
