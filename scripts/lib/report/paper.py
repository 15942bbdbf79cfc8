"""The paper's tables and figures that are made of training runs, as pages show them: ours beside the published."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.pages.formats import listed, markdown
from lib.repository import Record
from lib.reproduce.cells import Budget, Cell, cell_of, in_words
from lib.reproduce.recipes import ON_CPU, RECIPES
from lib.reproduce.run_folders import SHOTS
from lib.reproduce.shown import (
    NOT_RUN,
    Records,
    made,
    percent,
    published_figure,
    shot_accuracies,
    shot_limits,
    spread,
)
from lib.reproduce.tables import TABLES, Table

Line = tuple[str, str, str, int, str]  # data, method and budget: a row of a table


def by_cell(records: Iterable[Record]) -> dict[Cell, Record]:
    return {cell_of(record["cell"]): record for record in records}


def accuracy(name: str, records: list[Record]) -> str:
    """Test accuracy of a table's rows over D, or over the imbalance of the data; and what differs from the paper."""
    table, found = TABLES[name], by_cell(records)
    columns = list(dict.fromkeys(column(cell) for cell in table.cells))
    rows = [
        [*line[:2], made_with(line[2:]), *(_entry(table, found, line, at) for at in columns)]
        for line in lines(table, found)
    ]
    head = ["test, % (published)", "method", "made with", *columns]
    parts = [markdown(head, rows), shots(table, found), listed(list(table.notes) + words(own(table, found)))]
    return "\n\n".join(part for part in parts if part)


def words(found: Iterable[Record]) -> list[str]:
    """A line on the word vectors of the runs that had any."""
    files = sorted({record["settings"]["head.words"] for record in found if record["settings"].get("head.words")})
    return [f"The word vectors of our runs: {', '.join(f'`{file}`' for file in files)}."] if files else []


def runs(records: list[Record]) -> str:
    """What the runs of all tables were made with, and their speed."""
    cells = tuple(cell for name in TABLES if name != "losses" for cell in TABLES[name].cells)
    return listed(made(own(Table("", cells), by_cell(records))))


def column(cell: Cell) -> str:
    imbalance = cell.data.partition("-lt-")[2]
    return f"imbalance {imbalance}" if imbalance else f"D = {cell.dim}"


def row(cell: Cell) -> tuple[str, str]:
    """Data and method."""
    name, tail, _ = cell.data.partition("-lt-")
    return f"{name}{tail}".rstrip("-"), cell.label


def made_with(budget: Budget) -> str:
    recipe, epochs, precision = budget
    return f"{RECIPES[recipe].model}, {epochs} epochs" + in_words(precision)


def lines(table: Table, found: Records) -> list[Line]:
    """The rows: of each data, method and backbone the budgets that were run, else the full one; cnn is for any."""
    measured = [cell for cell in found if cell.kind in {other.kind for other in table.cells}]
    chosen: dict[Line, None] = {}
    for cell in table.cells:
        ours = [o for o in measured if row(o) == row(cell) and o.recipe in (cell.recipe, ON_CPU)] or [cell]
        chosen |= dict.fromkeys((*row(cell), *budget) for budget in sorted({o.budget for o in ours}))
    return list(chosen)


def own(table: Table, found: Records) -> list[Record]:
    """The records of a table's cells, of any budget and seed."""
    kinds = {cell.kind for cell in table.cells}
    return [record for cell, record in found.items() if cell.kind in kinds]


def _entry(table: Table, found: Records, line: Line, at: str) -> str:
    """Ours, and in brackets the published figure; empty where the table has no such cell."""
    cells = [cell for cell in table.cells if row(cell) == line[:2] and column(cell) == at]
    if not cells:
        return ""
    runs = [r for cell, r in found.items() if cell.kind == cells[0].kind and cell.budget == line[2:]]
    figure = published_figure(replace(cells[0], recipe=line[2]), table)
    ours = spread([run["test"] for run in runs]) if runs else NOT_RUN
    return ours if figure is None else f"{ours} ({figure:.2f})"


def shots(table: Table, found: Records) -> str:
    """Accuracy of classes with many, a medium number of and few training images; nothing where no record tells."""
    rows = []
    seen = [cell for cell in found if cell.kind in {other.kind for other in table.cells}] if table.shots else []
    for cell in {cell.row: cell for cell in seen}.values():
        shares = shot_accuracies([found[other] for other in seen if other.row == cell.row])
        words = [cell.data, cell.label, made_with(cell.budget)]
        rows += [[*words, *(shares.get(name, "") for name in SHOTS)]] if shares else []
    head = ["test, %, by training images", "method", "made with", *SHOTS]
    return f"{markdown(head, rows)}\n\nTraining images of a class: {shot_limits()}." if rows else ""


# --- figures ---------------------------------------------------------------------------------------------------------


def drawn_budget(cells: Iterable[Cell], found: Records) -> Budget | None:
    """The budget that most of these cells were run with, the longer of two; None where none was run."""
    kinds = {cell.kind for cell in cells}
    counts: dict[Budget, int] = {}
    for cell in found:
        if cell.kind in kinds and cell.seed == 0:
            counts[cell.budget] = counts.get(cell.budget, 0) + 1
    return max(counts, key=lambda budget: (counts[budget], budget[1])) if counts else None


def at_seed_0(cells: Iterable[Cell], found: Records, budget: Budget) -> dict[Cell, Record]:
    """The record of each of these cells with this budget, where there is one."""
    wanted = {cell.kind: cell for cell in cells}
    return {
        wanted[cell.kind]: record
        for cell, record in found.items()
        if cell.kind in wanted and cell.seed == 0 and cell.budget == budget
    }


def by_dim(found: Records) -> list[tuple[Cell, Record]]:
    return sorted(found.items(), key=lambda item: item[0].dim)


def moved(records: list[Record]) -> str:
    """Share of labels that the renewals move: of the first, the middle and the last epoch that has any; at seed 0."""
    kinds = {cell.kind for cell in TABLES["figure4b"].cells}
    found = {cell: record for cell, record in by_cell(records).items() if cell.kind in kinds and cell.seed == 0}
    rows = []
    for cell in sorted(found, key=lambda cell: (cell.dim, cell.budget)):
        shares = [(entry["epoch"] + 1, entry["moved"]) for entry in found[cell]["curve"] if entry["moved"] is not None]
        picked = [shares[0], shares[len(shares) // 2], shares[-1]] if shares else []
        said = [f"{percent(share)} (epoch {epoch})" for epoch, share in picked] or ["", "", ""]
        rows.append([str(cell.dim), made_with(cell.budget), *said])
    head = ["D", "made with", "labels moved early, %", "in the middle", "at the end"]
    return markdown(head, rows) if rows else NOT_RUN
