"""Formats tables and their numbers."""

from __future__ import annotations

import re

NOT_MEASURED = "not measured"
NO_BREAK = "\N{NO-BREAK SPACE}"
TAG = re.compile("<(?=[a-zA-Z/!?])")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a browser breaks no line beside a ± and before a share in brackets."""
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join("| " + " | ".join(escaped(cell) for cell in cells) + " |" for cells in lines)
    return text.replace(" ± ", f"{NO_BREAK}±{NO_BREAK}").replace(" %)", f"{NO_BREAK}%)")


def escaped(text: str) -> str:
    """Text that ends no cell of a table and opens no HTML tag."""
    return TAG.sub("&lt;", text.replace("|", r"\|"))


def listed(facts: list[str]) -> str:
    """A Markdown list of the facts."""
    return "\n".join(f"- {fact}" for fact in facts)


def ratio(value: float | None, error: float | None = None) -> str:
    """``1.66×``, or ``1.66 ± 0.05×`` with the error of the ratio."""
    if value is None:
        return NOT_MEASURED
    digits = 3 if value < 0.1 else 2 if value < 10 else 1 if error is not None and error < 0.95 else 0
    return f"{value:.{digits}f}×" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}×"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NOT_MEASURED
    if seconds < 0.9995e-3:
        return f"{1e6 * seconds:.3g} µs"
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def percent(share: float | None) -> str:
    if share is None:
        return NOT_MEASURED
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"


def mebibytes(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:,.0f} MiB" if value >= 1 else "< 1 MiB"
