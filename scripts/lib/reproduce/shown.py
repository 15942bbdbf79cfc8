"""What is printed: the cells of a table with their state, and the table with the published figures beside ours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from statistics import mean, median, stdev

from lib.repository import Record
from lib.reproduce.cells import FLOAT32, Cell, Place, cell_of, in_words
from lib.reproduce.recipes import RECIPES, Machine, arguments_of, has_begun, missing
from lib.reproduce.run_folders import SHOTS, epochs_done, rows_of
from lib.reproduce.tables import Table

NOT_RUN, NOT_AVAILABLE = "not run", "not available"
Records = Mapping[Cell, Record]


# --- cells -----------------------------------------------------------------------------------------------------------


def list_cells(cells: list[Cell], records: Records, place: Place, machine: Machine) -> str:
    """Each cell with its state, and its command on the next line."""
    lines = []
    for cell in cells:
        command = shlex.join(["fastproto-train", *arguments_of(cell, place, machine)])
        lines += [f"{cell.table} {cell.name}: {state(cell, records, place, machine)}", f"    {command}"]
    return "\n".join(lines)


def state(cell: Cell, records: Records, place: Place, machine: Machine) -> str:
    if cell in records:
        here = "" if place.record(cell).is_file() else " (a record of the repository)"
        return f"done, test {percent(records[cell]['test'])} %{here}"
    run = place.run(cell)
    if has_begun(run):
        return f"begun, {epochs_done(rows_of(run))} of {cell.epochs} epochs"
    reason = missing(cell, machine)
    return NOT_RUN if reason is None else f"{NOT_RUN}: {reason}"


# --- table -----------------------------------------------------------------------------------------------------------


def show_table(name: str, table: Table, cells: list[Cell], records: Records) -> str:
    """As text the rows of ``cells``: of the full budget, as they were asked for, and as there are records of them."""
    order = list(dict.fromkeys(cell.kind for cell in cells))
    own = [cell for cell in (*table.cells, *cells, *records) if cell.kind in order]
    rows = sorted({cell.row: cell for cell in own}.values(), key=lambda cell: order.index(cell.kind))
    found = {cell.row: [records[other] for other in records if other.row == cell.row] for cell in rows}
    lines = [_line(cell, found[cell.row], table) for cell in rows]
    head = (
        "data",
        "D",
        "method",
        "recipe",
        "epochs",
        "published",
        "test",
        "top-5",
        "validation",
        "s/epoch",
        "images/s",
    )
    lines = [head, *lines]
    if not table.published:
        lines = [(*line[:5], *line[6:]) for line in lines]
    measured = [record for row in found.values() for record in row]
    parts = [f"{name}: {table.title}", columns(lines), *_moved(table, measured), *_shots(table, rows, found)]
    return "\n\n".join([*parts, "\n".join(remarks(table, measured))])


def _line(cell: Cell, found: list[Record], table: Table) -> tuple[str, ...]:
    """The words of a row; see the head in :func:`show_table`."""
    figure = published_figure(cell, table)
    published = NOT_AVAILABLE if figure is None else f"{figure:.2f}"
    start = (cell.data, str(cell.dim), cell.label, cell.backbone, str(cell.epochs), published)
    if not found:
        return (*start, NOT_RUN, "", "", "", "")
    accuracies = [spread([record[key] for record in found]) for key in ("test", "test_top5", "validation")]
    return (*start, *accuracies, *speed(found))


def speed(found: list[Record]) -> tuple[str, str]:
    """Seconds of an epoch, and training images a second where a record has their number: medians over the runs."""
    rates = [record["train_images"] / record["seconds_per_epoch"] for record in found if record.get("train_images")]
    seconds = median(record["seconds_per_epoch"] for record in found)
    return f"{seconds:.1f}", f"{median(rates):,.0f}" if rates else ""


def published_figure(cell: Cell, table: Table) -> float | None:
    """The figure of the paper's recipe, also beside a row of another one: what differs is said below."""
    if cell.overrides:
        return None
    own = table.published.get(cell.recipe)
    choices = [own] if own is not None else list(table.published.values())
    figures = [figure[key] for figure in choices if (key := (cell.data, cell.dim, cell.method)) in figure]
    return figures[0] if len(figures) == 1 else None


def _moved(table: Table, found: list[Record]) -> list[str]:
    if not table.moved or not found:
        return []
    cells = [cell_of(record["cell"]) for record in found]
    head = ("epoch", *(f"D = {cell.dim}, {cell.backbone}, {cell.epochs} epochs, seed {cell.seed}" for cell in cells))
    shares = [{entry["epoch"]: entry["moved"] for entry in record["curve"]} for record in found]
    epochs = sorted({epoch for share in shares for epoch in share})
    lines = [
        (str(epoch), *("" if share.get(epoch) is None else percent(share[epoch]) for share in shares))
        for epoch in epochs
    ]
    return ["labels that moved at a renewal, %\n" + columns([head, *lines])]


def _shots(table: Table, rows: list[Cell], found: Mapping[tuple[object, ...], list[Record]]) -> list[str]:
    if not table.shots or not any(shot_accuracies(found[cell.row]) for cell in rows):
        return []
    lines = [("data", "D", "method", "recipe", "epochs", *SHOTS)]
    for cell in rows:
        shares = shot_accuracies(found[cell.row])
        start = (cell.data, str(cell.dim), cell.label, cell.backbone, str(cell.epochs))
        lines += [(*start, *(shares.get(name, "") for name in SHOTS))] if shares else []
    return [f"test accuracy of classes by their training images, %: {shot_limits()}\n{columns(lines)}"]


def shot_limits() -> str:
    """What the kinds of classes are, in words."""
    (most, _), (low, high), (_, least) = SHOTS.values()
    return f"many, {most} or more; medium, {low} to {high}; few, {least} or fewer"


def shot_accuracies(found: list[Record]) -> dict[str, str]:
    """Accuracy by the kind of classes, of the kinds that all records have; none of records that do not tell."""
    kinds = [record.get("shots") or {} for record in found]
    return {
        name: spread([kind[name]["accuracy"] for kind in kinds])
        for name in SHOTS
        if kinds and all(name in kind for kind in kinds)
    }


def remarks(table: Table, found: list[Record]) -> list[str]:
    """What differs between the published figures and ours, in a line each."""
    lines = list(table.notes)
    if table.published:
        budgets = "; ".join(f"{RECIPES[name].model}, {RECIPES[name].epochs} epochs" for name in table.published)
        lines.append(f"Published: the README of the authors' repository. Their budget: {budgets}.")
    return lines + made(found)


def made(found: list[Record]) -> list[str]:
    """A line for each way in which our records were made."""
    ours: dict[str, list[Record]] = {}
    for record in found:
        ours.setdefault(_made_with(record), []).append(record)
    return [f"Ours: {text}, {_runs(runs)}." for text, runs in ours.items()] or [f"Ours: {NOT_RUN}."]


def _made_with(record: Record) -> str:
    settings = record["settings"]
    precision = in_words(settings.get("precision", FLOAT32))
    return (
        f"{settings['model.name']}, {settings['optim.name']} {settings['optim.lr']:g}, {settings['optim.epochs']} "
        f"epochs{precision}{_source(record)}, on {_machine(record)}, commit {_short(record['commit'])}"
    )


def _source(record: Record) -> str:
    """Where CIFAR was a folder of pictures: other pictures are validation then."""
    return ", pictures in folders" if record["settings"].get("data.name") == "image-folder" else ""


def _machine(record: Record) -> str:
    """The device; of a record that tells, also the processor, the threads of a run and how many ran at once."""
    facts = record.get("machine")
    if not facts:
        return str(record["device"])
    return f"{record['device']} ({facts['cpu']}, threads: {facts['threads']}, jobs: {facts['jobs']})"


def _short(commit: str) -> str:
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def _runs(found: list[Record]) -> str:
    """Their seeds and their speed."""
    seeds = sorted({record["cell"]["seed"] for record in found})
    seconds, images = speed(found)
    fast = f", {images} images/s" if images else ""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; {seconds} s an epoch{fast}"


# --- text ------------------------------------------------------------------------------------------------------------


def columns(rows: list[tuple[str, ...]]) -> str:
    """Cells under one another: text to the left, figures to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = [all(_is_figure(row[i]) for row in rows[1:]) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{text:>{width}}" if right else f"{text:<{width}}"
            for text, width, right in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def _is_figure(text: str) -> bool:
    return text in ("", NOT_RUN, NOT_AVAILABLE) or text[0].isdigit()


def spread(shares: list[float]) -> str:
    """Mean in percent, with the standard deviation where there are several."""
    several = f" ± {100 * stdev(shares):.2f}" if len(shares) > 1 else ""
    return percent(mean(shares)) + several


def percent(share: float) -> str:
    return f"{100 * share:.2f}"
