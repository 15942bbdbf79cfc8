"""Tables and figures that are computed when the command runs: they have no cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fastproto.support.atomic_files import write_whole
from lib.repository import Record


def _table7(published: Path | None) -> list[Record]:
    from lib.prototype_figures import table7

    return table7(published)


def _figure2(published: Path | None) -> list[Record]:
    from lib.prototype_figures import figure2

    return figure2(published)


def _figure3a(published: Path | None) -> list[Record]:
    from lib.reproduce.search_figures import figure3a

    return figure3a()


def _figure3c(published: Path | None) -> list[Record]:
    from lib.reproduce.search_figures import figure3c

    return figure3c()


def _loss_powers(published: Path | None) -> list[Record]:
    from lib.reproduce.loss_study import powers

    return powers()


ROWS: dict[str, Callable[[Path | None], list[Record]]] = {
    "table7": _table7,
    "figure2": _figure2,
    "figure3a": _figure3a,
    "figure3c": _figure3c,
    "loss_powers": _loss_powers,
}
"""Their rows are written to OUT/NAME.json."""
PUBLISHED = ("table7", "figure2")
"""Those that compare with the authors' prototype files."""
STUDIES = ("initial_assignment", "integrations", "renewals")
"""What has a file of its own in the repository."""


def compute(name: str, published: Path | None, out: Path) -> None:
    """Compute the rows of a table or figure, print and write them."""
    rows = ROWS[name](published)
    text = json.dumps(rows, indent=1) + "\n"
    write_whole(out / f"{name}.json", lambda file: file.write_text(text, encoding="utf-8"))
    if name == "figure2":
        from lib.prototype_figures import draw_figure2

        draw_figure2(rows, out / "figure2.png")
    print(f"written to {out}")


def study(name: str) -> None:
    """Run what writes into the repository."""
    if name == "initial_assignment":
        from lib.initial_assignment import initial_assignment

        initial_assignment()
    elif name == "integrations":
        from lib.integrations.parity import integrations

        integrations()
    else:
        from lib.renewals import renewals

        renewals()
