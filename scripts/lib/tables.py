"""Formats tables and their numbers."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record

NO_BREAK = "\N{NO-BREAK SPACE}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a browser breaks no line beside a ±."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines).replace(" ± ", f"{NO_BREAK}±{NO_BREAK}")


def listed(facts: list[str]) -> str:
    """A Markdown list of the facts."""
    return "\n".join(f"- {fact}" for fact in facts)


def ratio(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2f}×" if value < 10 else f"{value:.0f}×"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NOT_MEASURED
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def machine(facts: Record) -> str:
    threads = "one thread" if facts["threads"] == 1 else f"{facts['threads']} threads"
    return f"{facts['processor']}, {facts['capability']}, {threads}, torch {facts['torch']}"
