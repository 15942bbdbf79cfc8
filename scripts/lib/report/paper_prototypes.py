"""Table 7 and Figures 2, 3a and 3c of the paper, which need no training, as ``scripts/reproduce`` has computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.pages.formats import duration, markdown
from benchmarks.pages.pictures import Line, Panel
from lib.repository import Record

NOT_AVAILABLE = "not available"


def table7(rows: list[Record]) -> str:
    """Largest and smallest cosine for each (C, D): the paper's and ours, with L_uni."""
    lines = []
    for row in rows:
        start = [f"({row['classes']:,}, {row['dim']})", row["what"]]
        if "missing" not in row:
            lines.append([*start, *(_figure(row.get(key)) for key in ("max_cosine", "min_cosine", "uniformity"))])
    return markdown(["(C, D)", "prototypes", "largest cosine", "smallest cosine", "L_uni, t = 2"], lines)


def _figure(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value + 0.0:.4f}"


def figure2(rows: list[Record]) -> str:
    """What the average angle and the least distance say of good and of degenerate sets."""
    lines = [
        [row["what"], f"{row['mean_angle']:.2f}", f"{row['distance']:.4f}", f"{row['uniformity']:.4f}"]
        for row in rows
        if row["part"] == "sets"
    ]
    return markdown(["100 points, D = 3", "average angle, °", "least cosine distance", "L_uni, t = 2"], lines)


def figure3a(rows: list[Record]) -> str:
    """L_uni after steps of the paper's descent, by the rows that move in a step; and the end of fastproto's search."""
    descents = [row for row in rows if "steps" in row]
    steps = list(dict.fromkeys(row["steps"] for row in descents))
    lines = []
    for subset in dict.fromkeys(row["subset"] for row in descents):
        reached = {row["steps"]: row["uniformity"] for row in descents if row["subset"] == subset}
        lines.append([str(subset), *(f"{reached[count]:.5f}" if count in reached else "" for count in steps)])
    (ours,) = (row for row in rows if "method" in row)
    head = ["L_uni, t = 2: rows of a step", *(f"{count:,} steps" for count in steps)]
    end = f"fastproto, `{ours['method']}`: {ours['uniformity']:.5f}. The paper's values: {NOT_AVAILABLE}."
    return f"{markdown(head, lines)}\n\n{end}"


def figure3c(rows: list[Record]) -> str:
    """Seconds of one assignment by the number of classes."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    seconds = {(row["classes"], row["method"]): row["seconds"] for row in rows}
    lines = [
        [f"{count:,}", *(duration(seconds.get((count, method))) for method in methods)]
        for count in dict.fromkeys(row["classes"] for row in rows)
    ]
    head = [f"C, with D = {rows[0]['dim']}", *(method.replace("_", " ") for method in methods)]
    return f"{markdown(head, lines)}\n\nThe paper's values: {NOT_AVAILABLE}."


# --- pictures --------------------------------------------------------------------------------------------------------


def over_passes(rows: list[Record]) -> list[Panel]:
    """Figure 2: L_uni over the optimisation."""
    found = [row for row in rows if row["part"] == "passes"]
    lines = [_line(name, [r for r in found if r["what"] == name], "passes") for name in _names(found, "what")]
    return [Panel("100 points, D = 10", "passes over all pairs", "L_uni (t = 2)", lines, "x")]


def over_steps(rows: list[Record]) -> list[Panel]:
    """Figure 3a."""
    found = [row for row in rows if "steps" in row]
    lines = [
        _line(f"{subset} rows a step", [r for r in found if r["subset"] == subset], "steps")
        for subset in _names(found, "subset")
    ]
    (end,) = (row["uniformity"] for row in rows if "method" in row)
    steps = [x for line in lines for x in line.x]
    lines.append(Line("fastproto's search", [min(steps), max(steps)], [end, end], reference=True))
    return [Panel("100 points, D = 10", "steps of the paper's descent", "L_uni (t = 2)", lines, "x")]


def over_classes(rows: list[Record]) -> list[Panel]:
    """Figure 3c."""
    lines = [
        Line(name.replace("_", " "), *_points([r for r in rows if r["method"] == name], "classes", "seconds"))
        for name in _names(rows, "method")
    ]
    return [Panel(f"One assignment, D = {rows[0]['dim']}", "classes C", "seconds", lines, "xy")]


def _names(rows: list[Record], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _line(name: str, rows: list[Record], key: str) -> Line:
    return Line(name, *_points(rows, key, "uniformity"))


def _points(rows: list[Record], x: str, y: str) -> tuple[list[float], list[float]]:
    return [float(row[x]) for row in rows], [row[y] for row in rows]


PLOTS: dict[str, tuple[str, Callable[[Any], list[Panel]]]] = {  # picture: (its results, what makes its panels)
    "figure2": ("figure2", over_passes),
    "figure3a": ("figure3a", over_steps),
    "figure3c": ("figure3c", over_classes),
}
CAPTIONS = {
    "figure2": "L_uni over the optimisation of 100 points in 10 dimensions",
    "figure3a": "L_uni over the steps of the paper's descent",
    "figure3c": "Seconds of one assignment by the number of classes",
}


def picture(name: str) -> Callable[[list[Record]], str]:
    """The text of a figure with its picture before it."""
    write = {"figure2": figure2, "figure3a": figure3a, "figure3c": figure3c}[name]
    return lambda rows: f"![{CAPTIONS[name]}](pictures/{name}.png)\n\n{write(rows)}"
