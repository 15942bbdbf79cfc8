"""The table of benchmarks/bench_prototypes.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, listed, machine, markdown

TITLES = ["(C, D)", "`uniform`: L_uni, t = 2", "lower bound", "its max cosine", "time", "passes to 1 %"]
TITLES += ["`max_cosine`: max cosine", "lower bound", "its L_uni", "time"]
Sized = dict[tuple[int, int], Record]


def by_size(found: Record, what: str) -> Sized:
    return {(row["classes"], row["dim"]): row for row in found["rows"] if row["what"] == what}


def table(found: Record) -> str:
    near, sharp, flat = (by_size(found, what) for what in ("passes to 1 %", "max cosine", "L_uni"))
    rows = [row(size, flat.get(size), near.get(size), sharp.get(size)) for size in sorted(flat.keys() | sharp.keys())]
    facts = [f"{machine(found['facts'])}."] if "facts" in found else []
    return f"{markdown(TITLES, rows)}\n\n{listed(facts + beside(found))}".rstrip()


def row(size: tuple[int, int], flat: Record | None, near: Record | None, sharp: Record | None) -> list[str]:
    cells = [sized(size)]
    if flat is None:
        cells += [NOT_MEASURED] * 4
    else:
        cells += [f"{flat['reached']:.5f}", noted(flat, "bound"), noted(flat, "max cosine"), duration(flat["seconds"])]
    cells.append(NOT_MEASURED if near is None else f"{near['reached']:.0f}")
    if sharp is None:
        return cells + [NOT_MEASURED] * 4
    return [*cells, f"{sharp['reached']:.4f}", noted(sharp, "bound"), noted(sharp, "L_uni"), duration(sharp["seconds"])]


def sized(size: tuple[int, int]) -> str:
    return f"({size[0]:,}, {size[1]})"


def noted(found: Record, name: str) -> str:
    """The number of this name in the note of a row, as written there."""
    part = next((part for part in found["note"].split(", ") if part.startswith(f"{name} ")), None)
    return NOT_MEASURED if part is None else part.removeprefix(f"{name} ")


def beside(found: Record) -> list[str]:
    """Closed forms, the authors' files and the paper's gradient descent at the measured sizes."""
    lines = []
    for objective in ("uniform", "max_cosine"):
        for size, made in by_size(found, f"closed form, s ({objective})").items():
            name, _, facts = made["note"].partition(": ")
            value = noted({"note": facts}, "L_uni")
            lines.append(f"{sized(size)}, `{objective}`: the closed form `{name}`, L_uni {value}, in "
                         f"{duration(made['reached'])}.")  # fmt: skip
    cosines = by_size(found, "max cosine, published")
    for size, flat in by_size(found, "L_uni, published").items():
        lines.append(
            f"{sized(size)}, the authors' file: L_uni {flat['target']:.5f} and max cosine "
            f"{cosines[size]['target']:.3f}; here {flat['reached']:.5f} and {cosines[size]['reached']:.2g}."
        )
    for size, descent in by_size(found, "L_uni, SGD eq5").items():
        lines.append(
            f"{sized(size)}, the paper's descent with its settings: L_uni {descent['reached']:.5f} after "
            f"{descent['passes']:,} passes."
        )
    return lines
