"""The table of benchmarks/bench_prototypes.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import markdown

HEAD = ["(C, D)", "L_uni, t = 2", "lower bound", "passes to 1 %", "max cosine, `max_cosine`", "lower bound"]


def table(found: Record) -> str:
    def by_size(what: str) -> dict[tuple[int, int], Record]:
        return {(row["classes"], row["dim"]): row for row in found["rows"] if row["what"] == what}

    near, sharp, flat = by_size("passes to 1 %"), by_size("max cosine"), by_size("L_uni")
    lines = []
    for size in sorted(flat.keys() | sharp.keys()):
        u, m, p = flat.get(size), sharp.get(size), near.get(size)
        lines.append(
            [
                f"({size[0]:,}, {size[1]})",
                NOT_MEASURED if u is None else f"{u['reached']:.5f}",
                NOT_MEASURED if u is None else u["note"].split(",")[0].removeprefix("bound "),
                NOT_MEASURED if p is None else f"{p['reached']:.0f}",
                NOT_MEASURED if m is None else f"{m['reached']:.4f}",
                NOT_MEASURED if m is None else m["note"].split("bound ")[1].split(",")[0],
            ]
        )
    return markdown(HEAD, lines)
