"""The table of searches for prototypes."""

from __future__ import annotations

from .formats import NOT_MEASURED, duration, listed, markdown
from .results import OURS, Results, Row
from .summary import machine_line

TITLES = ["(C, D)", "`uniform`: L_uni, t = 2", "lower bound", "its max cosine", "time", "passes to 1 %"]
TITLES += ["`max_cosine`: max cosine", "lower bound", "its L_uni", "time"]
Shape = tuple[int, int]


def by_shape(results: Results, objective: str, provider: str) -> dict[Shape, Row]:
    rows = [row for row in results.of("estimate_prototypes") if row.size["objective"] == objective]
    return {(row.size["C"], row.size["D"]): row for row in rows if row.provider == provider}


def search_table(results: Results) -> str:
    """What the best effort reaches beside proven bounds, in one thread; then the other ways to prototypes."""
    flat, sharp = (by_shape(results, objective, f"{OURS}, best") for objective in ("uniform", "max_cosine"))
    rows = [_line(shape, flat.get(shape), sharp.get(shape)) for shape in sorted(flat.keys() | sharp.keys())]
    if not rows:
        return NOT_MEASURED
    return f"{markdown(TITLES, rows)}\n\n{listed([machine_line(results) + ' One thread.', ' '.join(_others(results))])}"


def _line(shape: Shape, flat: Row | None, sharp: Row | None) -> list[str]:
    cells = [f"({shape[0]:,}, {shape[1]})"]
    if flat is None:
        cells += [NOT_MEASURED] * 5
    else:
        near = flat.info["passes_to_one_percent"]
        cells += [f"{flat.info['uniformity']:.5f}", f"{flat.info['uniformity_bound']:.6f}"]
        cells += [f"{flat.info['max_cosine']:.4f}", duration(flat.median)]
        cells.append(NOT_MEASURED if near is None else f"{near:.0f}")
    if sharp is None:
        return cells + [NOT_MEASURED] * 4
    cells += [f"{sharp.info['max_cosine']:.4f}", f"{sharp.info['max_cosine_bound']:.4f}"]
    return [*cells, f"{sharp.info['uniformity']:.5f}", duration(sharp.median)]


def _others(results: Results) -> list[str]:
    """Closed forms, the authors' files and the paper's descent at the measured sizes."""
    best = by_shape(results, "uniform", f"{OURS}, best")
    lines = [
        f"{_shown(shape)}: the closed form `{row.info['method']}`, L_uni {row.info['uniformity']:.8f}, in "
        f"{duration(row.median)}."
        for shape, row in best.items()
        if row.info["passes"] == 0
    ]
    for name in ("authors' file", "the paper's descent"):
        for shape, row in by_shape(results, "uniform", name).items():
            ours = f"; here {best[shape].info['uniformity']:.5f}" if shape in best else ""
            lines.append(
                f"{_shown(shape)}, {name}: L_uni {row.info['uniformity']:.5f} and max cosine "
                f"{row.info['max_cosine']:.3f}{ours}."
            )
    return lines


def _shown(shape: Shape) -> str:
    return f"({shape[0]:,}, {shape[1]})"
