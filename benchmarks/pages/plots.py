"""Makes the panels of each picture from the rows."""

from __future__ import annotations

from collections.abc import Callable

from .fits import exponent
from .pictures import Line, Panel, Points, Tall
from .results import OURS, Results, Row
from .tables import MANY, series

LETTERS = {"C": "classes C", "D": "dimension D", "B": "batch B"}
MOST_TICKS = 4


def against(results: Results, op: str, letter: str, title: str, value: str = "seconds") -> list[Panel]:
    """A panel, or none: milliseconds or MiB of each provider against a letter, with the fitted exponents."""
    factor, label = (1e3, "milliseconds") if value == "seconds" else (1.0, "extra peak memory, MiB")
    lines = [
        Line(name + _fit(sizes, values, letter), sizes, [factor * each for each in values])
        for name, sizes, values in series(results, op, letter, value=value)
    ]
    ticks = sorted({x for line in lines for x in line.x})
    shown = ticks if len(ticks) <= MOST_TICKS else None
    return [Tall(title, LETTERS[letter], label, lines, "xy", ticks=shown)] if lines else []


def _fit(sizes: list[float], values: list[float], letter: str) -> str:
    if len(sizes) < MANY:
        return ""
    slope, error = exponent(sizes, values)
    return f": {letter}^({slope:.2f} ± {error:.2f})"


def training_step(results: Results) -> list[Panel]:
    """The head's step against C, D and B."""
    panels = [against(results, "head_step", letter, f"Head step against {letter}") for letter in LETTERS]
    return [panel for found in panels for panel in found]


def assignment(results: Results) -> list[Panel]:
    return against(results, "assign", "C", "Assignment of clustered class means")


def gaussian_potential(results: Results) -> list[Panel]:
    panels = [against(results, "gaussian_potential", letter, f"A pass against {letter}") for letter in "CD"]
    return [panel for found in panels for panel in found]


def prototypes(results: Results) -> list[Panel]:
    """The closest pair of 100 prototypes against D beside its bound, and the time of one pass."""
    rows = [row for row in results.of("estimate_prototypes") if row.provider == f"{OURS}, best"]
    sharp = [row for row in rows if row.size["objective"] == "max_cosine" and row.size["C"] == 100]
    dims = [float(row.size["D"]) for row in sorted(sharp, key=lambda row: int(row.size["D"]))]
    panels = against(results, "search_pass", "C", "One pass of a search")
    if len(dims) < 2:
        return panels
    sharp.sort(key=lambda row: int(row.size["D"]))
    cosines = [
        Line("reached, objective max_cosine", dims, [row.info["max_cosine"] for row in sharp]),
        Line("lower bound", dims, [row.info["max_cosine_bound"] for row in sharp], reference=True),
    ]
    return [Tall("Closest pair of 100 prototypes", "dimension D", "max cosine", cosines, "x", ticks=dims), *panels]


def memory(results: Results) -> list[Panel]:
    """Extra peak memory against C."""
    wanted = {
        "gaussian_potential": "Gaussian potential",
        "assign": "Assignment",
        "nearest_prototypes": "Nearest prototypes",
    }
    panels = [against(results, op, "C", title, "extra_mib") for op, title in wanted.items()]
    return [panel for found in panels for panel in found]


def roofline(results: Results) -> list[Panel]:
    """Rate against arithmetic intensity of our ops in all threads, below the copy bandwidth and the products."""
    most = results.most_threads
    limits = {row.provider: row.info["flops"] / min(row.seconds) for row in results.of("ceilings", most)}
    rows = [row for row in results.of("ceilings", None) if row.threads == most]
    copied = next((row.info["bytes"] / min(row.seconds) for row in rows if row.info["bytes"]), None)
    points: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.provider.startswith(OURS) and row.threads == most and row.info["flops"] and row.info["bytes"]:
            points.setdefault(row.op, []).append(row)
    if copied is None or not points:
        return []
    lines: list[Line] = [
        Points(op, [each.info["flops"] / each.info["bytes"] for each in found], [_rate(each) / 1e9 for each in found])
        for op, found in points.items()
    ]
    intensities = [x for line in lines for x in line.x]
    ends = [min(intensities) / 2, max(intensities) * 2]
    for name, limit in limits.items():
        if limit:
            edge = sorted({*ends, min(max(limit / copied, ends[0]), ends[1])})
            height = [min(limit, copied * x) / 1e9 for x in edge]
            lines.append(Line(f"copy and {name}", edge, height, reference=True))
    return [Tall(f"Roofline, {most} threads", "operations per byte", "10⁹ operations per second", lines, "xy")]


def _rate(row: Row) -> float:
    return float(row.info["flops"]) / row.median


PLOTS: dict[str, tuple[str, Callable[[Results], list[Panel]]]] = {  # picture: (what it shows, its panels)
    "training_step": ("Milliseconds of a step of the head against C, D and B", training_step),
    "assignment": ("Milliseconds of an assignment against C, beside dense solvers", assignment),
    "gaussian_potential": (
        "Milliseconds of a pass against C and D, by precision, beside its peers",
        gaussian_potential,
    ),
    "prototypes": ("The closest pair of 100 prototypes against D beside its bound; a pass against C", prototypes),
    "memory": ("Extra peak memory against C", memory),
    "roofline": ("Operations per second against operations per byte, below the machine's limits", roofline),
}
