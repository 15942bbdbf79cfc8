"""The table of benchmarks/bench_assignment.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, machine, markdown, ratio

TITLES = {"ours": "fastproto", "ours_unchanged": "unchanged", "lapjv": "lapjv", "lapx": "lapx", "scipy": "SciPy"}
"""Columns in this order, measured or not; then the peers that the cells name besides."""


def table(found: Record) -> str:
    text = [f"{machine(found['machine'])}; D = {found['cells'][0]['D']}; every answer of fastproto is certified."]
    text += [sequence(run) for run in found["sequences"]]
    text += [large(run) for run in found["large"]]
    fits = [
        f"{name} C^({fit['exponent']:.2f} ± {fit['error']:.2f}) from {min(fit['sizes']):,} to {max(fit['sizes']):,}"
        for name, fit in found.get("exponents", {}).items()
    ]
    text.append(f"Fitted cost on the clustered means: {', '.join(fits) or NOT_MEASURED}.")
    text.append(
        f"Extra memory at (20,000, 128): {found['extra_peak_mib_20000_128']:.0f} MiB; the float32 matrix is 1,526 MiB."
    )
    names = list(dict.fromkeys([*TITLES, *(name for cell in found["cells"] for name in cell["providers"])]))
    titles = ["class means, C", "method of `auto`", *(TITLES.get(name, name) for name in names)]
    return markdown(titles, [row(cell, names) for cell in found["cells"]]) + "\n\n" + " ".join(text)


def row(cell: Record, names: list[str]) -> list[str]:
    line = [f"{cell['kind']}, {cell['C']:,}", cell["method"].replace("_", " ")]
    for name in names:
        got = cell["providers"].get(name)
        line.append(NOT_MEASURED if got is None else duration(got["median_s"]))
        if got is not None and not name.startswith("ours"):
            line[-1] += f" ({ratio(got['over_ours'])})"
    return line


def sequence(run: Record) -> str:
    return (
        f"{run['renewals']} renewals in a row at C = {run['C']:,} ({run['name']}), {run['unchanged']} of them "
        f"without a change: {ratio(run['speedup'])} as fast as a dense solver each time, "
        f"{ratio(run['unchanged_speedup'])} where nothing changed, "
        f"{ratio(run.get('repeated_speedup'))} for the last one asked again."
    )


def large(run: Record) -> str:
    gap = f"{run['relative_gap']:.0e}"
    gap = f"relative gap {gap}" if run["certified"] else f"not certified, {gap}"
    return f"C = {run['C']:,}, D = {run['D']}: {duration(run['seconds'])}, {gap}."
