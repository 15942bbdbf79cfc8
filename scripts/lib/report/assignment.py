"""The tables of benchmarks/bench_assignment.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, listed, machine, markdown, ratio

TITLES = {"ours": "fastproto", "ours_unchanged": "unchanged", "lapjv": "lapjv", "lapx": "lapx", "scipy": "SciPy"}
"""The columns in order, measured or not; further peers in the cells follow."""


def table(found: Record) -> str:
    """Cold solves, with the machine, the fitted cost and the memory."""
    names = list(dict.fromkeys([*TITLES, *(name for cell in found["cells"] for name in cell["providers"])]))
    titles = ["class means, C", "method of `auto`", *(TITLES.get(name, name) for name in names)]
    certified = [cell["certified"] for cell in found["cells"]]
    facts = [
        f"{machine(found['machine'])}; D = {found['cells'][0]['D']}.",
        f"Certified: {sum(certified)} of {len(certified)} answers of fastproto.",
        f"Fitted cost on the clustered means: {exponents(found.get('exponents', {}))}.",
        f"Extra memory at C = 20,000, D = 128: {found['extra_peak_mib_20000_128']:.0f} MiB; "
        "the float32 matrix alone has 1,526 MiB.",
    ]
    return f"{markdown(titles, [row(cell, names) for cell in found['cells']])}\n\n{listed(facts)}"


def row(cell: Record, names: list[str]) -> list[str]:
    line = [f"{cell['kind']}, {cell['C']:,}", cell["method"].replace("_", " ")]
    for name in names:
        got = cell["providers"].get(name)
        line.append(NOT_MEASURED if got is None else duration(got["median_s"]))
        if got is not None and not name.startswith("ours"):
            line[-1] += f" ({ratio(got['over_ours'])})"
    return line


def exponents(fits: Record) -> str:
    parts = [
        f"{TITLES.get(name, name)} C^({fit['exponent']:.2f} ± {fit['error']:.2f}) from {min(fit['sizes']):,} to "
        f"{max(fit['sizes']):,}"
        for name, fit in fits.items()
    ]
    return ", ".join(parts) or NOT_MEASURED


def renewals(found: Record) -> str:
    """Sequences of renewals, each warm-started from the last."""
    titles = ["sequence", "renewals", "unchanged", "all renewals", "unchanged ones", "the last one again"]
    speedups = ("speedup", "unchanged_speedup", "repeated_speedup")
    rows = [
        [f"{run['name']}, C = {run['C']:,}", str(run["renewals"]), str(run["unchanged"])]
        + [ratio(run.get(name)) for name in speedups]
        for run in found["sequences"]
    ]
    return markdown(titles, rows)


def large(found: Record) -> str:
    """Sizes at which no dense solver was run."""
    rows = [
        [f"{run['C']:,}", str(run["D"]), duration(run["seconds"]), f"{run['passes']:.1f}", certificate(run)]
        for run in found["large"]
    ]
    return markdown(["C", "D", "time", "passes over the scores", "relative gap"], rows)


def certificate(run: Record) -> str:
    return f"{run['relative_gap']:.0e}, {'certified' if run['certified'] else 'not certified'}"
