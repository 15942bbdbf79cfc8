"""A training step and an epoch in parts: data, backbone, head, assignment."""

from __future__ import annotations

from .formats import NOT_MEASURED, duration, markdown, percent
from .results import OURS, Results, Size, sizes_of
from .tables import sized

METHODS = (OURS, "PSC")
STEP = ["a step", "head", "data", "backbone", "head's part", "whole step, measured"]
EPOCH = ["an epoch", "head", "batches", "data", "backbone", "head's part", "assignment", "sum", "measured"]


def training_tables(results: Results) -> str:
    """Two tables, in one thread; shares are of the sum of the parts."""
    sizes = sizes_of(results.of("training_step"))
    steps = [line for size in sizes for method in METHODS if (line := _step(results, size, method))]
    epochs = [line for size in sizes for method in METHODS if (line := _epoch(results, size, method))]
    return "\n\n".join(markdown(*table) for table in ((STEP, steps), (EPOCH, epochs)) if table[1]) or NOT_MEASURED


def _parts(results: Results, size: Size, method: str) -> dict[str, float] | None:
    """Seconds of the parts of a step; None unless all of them were measured."""
    rows = [results.one("training_step", size, name) for name in ("data", "backbone", f"{method}, head")]
    if any(row is None for row in rows):
        return None
    return {name: row.median for name, row in zip(("data", "backbone", "head"), rows, strict=True) if row is not None}


def _shown(parts: dict[str, float]) -> list[str]:
    whole = sum(parts.values())
    return [f"{duration(each)} ({percent(each / whole)})" for each in parts.values()]


def _step(results: Results, size: Size, method: str) -> list[str]:
    parts, whole = _parts(results, size, method), results.one("training_step", size, f"{method}, whole step")
    if parts is None:
        return []
    return [sized(size), method, *_shown(parts), duration(None if whole is None else whole.median)]


def _epoch(results: Results, size: Size, method: str) -> list[str]:
    """The parts of a step times the batches, and one assignment; beside them the epoch as it was measured."""
    parts, drawn = _parts(results, size, method), results.one("training_step", size, "data")
    solved, whole = (
        results.one(op, size, name)
        for op, name in (("training_step", f"{method}, assignment"), ("training_epoch", method))
    )
    batches = None if drawn is None else drawn.info.get("batches_per_epoch")
    if parts is None or batches is None:
        return []
    parts = {name: batches * seconds for name, seconds in parts.items()}
    if solved is not None:
        parts["assignment"] = solved.median
    cells = [*_shown(parts), *([] if solved is not None else ["none"]), duration(sum(parts.values()))]
    return [sized(size), method, f"{batches:,}", *cells, duration(None if whole is None else whole.median)]
