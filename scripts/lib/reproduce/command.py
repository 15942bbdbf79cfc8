"""``scripts/reproduce``: its options, and what is done for them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastproto.cli.command_runner import exit_code
from fastproto.cli.parser import Parser
from fastproto.support.spelling import nearest, shown
from lib.repository import RESULTS
from lib.reproduce.cells import FLOAT32, Cell, Place, choose
from lib.reproduce.computed import PUBLISHED, ROWS, STUDIES, compute, study
from lib.reproduce.figures import draw_figures
from lib.reproduce.recipes import DOWNLOADED, ON_CPU, RECIPES, ROOTS, Machine
from lib.reproduce.records import load_records, merge
from lib.reproduce.schedule import Outcome, Schedule
from lib.reproduce.shown import list_cells, show_table
from lib.reproduce.tables import TABLES, Table


def main(
    arguments: list[str], description: str, tables: Mapping[str, Table] = TABLES, committed: Path = RESULTS
) -> int:
    """Run the command and return its exit code.

    Args:
        tables: those that are made of cells, by name.
        committed: folder of the repository whose records are shown beside those of ``--out``.
    """
    codes = [0]  # stays so where nobody reads the rest of what is printed
    return exit_code(lambda: codes.append(_reproduce(arguments, description, tables, committed))) or codes[-1]


def _reproduce(arguments: list[str], description: str, tables: Mapping[str, Table], committed: Path) -> int:
    parser = _parser(description)
    options = parser.parse_args(arguments)
    _check(options, [*tables, *ROWS, *STUDIES, "merge"])
    _check_used(options, parser, tables)
    if options.what == "merge":
        print(f"{merge(options.folders, options.out)} records in {options.out / 'records'}")
    elif options.what in tables:
        return _cells(options, tables[options.what], [committed, options.out])
    elif options.list or options.show:
        print(f"{options.what} has no cells: it is computed when the command runs without --list and --show")
    elif options.what in ROWS:
        compute(options.what, options.published, options.out)
    else:
        study(options.what)
    return 0


def _cells(options: argparse.Namespace, table: Table, folders: list[Path]) -> int:
    """List the cells of a table, or train them and show the table."""
    place, machine = Place(options.out), _machine(options)
    cells = choose(_asked(options, table, machine), options.cell)
    records = load_records(folders)
    if options.list:
        print(list_cells(cells, records, place, machine))
        return 0
    outcome = Outcome()
    if not options.show:
        seconds = None if options.minutes is None else 60 * options.minutes
        outcome = Schedule(place, machine, options.jobs, seconds, say=lambda line: print(line, flush=True)).run(cells)
        records = load_records(folders)
        draw_figures(options.what, list(records.values()), options.out)
    print(show_table(options.what, table, cells, records))
    if outcome.left:
        print(f"\nstopped with cells to go: {len(outcome.left)}; the same command goes on")
    return outcome.exit_code


def _asked(options: argparse.Namespace, table: Table, machine: Machine) -> list[Cell]:
    """The cells of a table with the recipe for this machine and the epochs, precision and seeds of the options."""
    small = options.recipe == ON_CPU or (options.recipe is None and not _has_gpu(machine))
    asked = []
    for cell in table.cells:
        if small and RECIPES[cell.recipe].named is not None:
            cell = replace(cell, recipe=ON_CPU, epochs=RECIPES[ON_CPU].epochs)
        cell = replace(cell, epochs=options.epochs or cell.epochs, precision=options.precision)
        asked += [replace(cell, seed=seed) for seed in options.seeds] if options.seeds else [cell]
    return list(dict.fromkeys(asked))


def _has_gpu(machine: Machine) -> bool:
    if machine.accelerator != "auto":
        return machine.accelerator == "gpu"
    import torch

    return torch.cuda.is_available()


def _machine(options: argparse.Namespace) -> Machine:
    return Machine(dict(options.root), options.download, options.accelerator, options.words)


# --- options ---------------------------------------------------------------------------------------------------------


def _parser(description: str) -> Parser:
    parser = Parser(
        prog="scripts/reproduce",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Any = parser.add_argument
    add("what", metavar="TABLE", help="one of the names above, or merge")
    add("folders", metavar="DIR", nargs="*", type=Path, help="of merge: folders that --out has named")
    add("--list", action="store_true", help="print the cells, their state and their commands; train nothing")
    add("--show", action="store_true", help="print the table; train nothing")
    add("--cell", action="append", default=[], metavar="FILTER", help="cifar100,d=10,method=dynamic,seed=0; repeatable")
    add("--epochs", type=int, help="instead of the recipe's; each number of epochs is a row of its own")
    add("--seeds", type=_seeds, help="such as 0,1,2")
    add("--minutes", type=float, help="time after which runs are stopped; the same command goes on")
    add("--jobs", type=int, default=1, help="cells that are trained at once")
    add("--recipe", choices=("paper", ON_CPU), help="backbone and budget; without a GPU cnn, else the paper's")
    add("--precision", choices=(FLOAT32, "bf16-mixed"), default=FLOAT32, help="each is a row of its own")
    add("--root", action="append", default=[], type=_root, metavar="NAME=DIR", help="folder of a data set; repeatable")
    add("--download", action="store_true", help="download data sets that are missing")
    add("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    add("--words", type=Path, metavar="FILE", help="word vectors of the class names, for word2vec")
    add("--published", type=Path, metavar="DIR", help="the authors' prototype files (100centers_3dim.pth)")
    add("--out", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="records, run folders and pictures")
    return parser


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no list of seeds; expected whole numbers: 0,1,2") from None


def _root(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or name not in ROOTS:
        raise argparse.ArgumentTypeError(f"{shown(text)} names no data set; expected NAME=DIR of {', '.join(ROOTS)}")
    return name, Path(folder)


def _check(options: argparse.Namespace, names: list[str]) -> None:
    """Raise ValueError for what no call can use."""
    if options.what not in names:
        near = nearest(options.what, names)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(names)}"
        raise ValueError(f"there is no table or figure {shown(options.what)}; {hint}")
    if options.folders and options.what != "merge":
        raise ValueError(f"{options.folders[0]} is no option of {options.what}; only merge takes folders")
    if options.what == "merge" and not options.folders:
        raise ValueError("merge has no folders; expected scripts/reproduce merge DIR ... --out DIR")
    fetched = DOWNLOADED if options.download else ()  # into a folder that is made then
    folders = [("--root", folder) for name, folder in options.root if name not in fetched]
    folders += [("--published", options.published)] if options.published is not None else []
    for option, folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{option} {folder} is not a folder; expected one that is there")
    if options.words is not None and not options.words.is_file():
        raise ValueError(f"--words {options.words} is not a file; expected word vectors of the class names")
    for name in ("epochs", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}; expected a whole number of at least 1")
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        raise ValueError(f"--minutes is {options.minutes:g}; expected a number > 0")


def _check_used(options: argparse.Namespace, parser: Parser, tables: Mapping[str, Table]) -> None:
    """Raise ValueError for an option that would do nothing."""
    names = [name for name in vars(options) if name not in ("what", "folders")]
    used = _used(options.what, [name for name in names if name != "published"], tables)
    useless = [name for name in names if name not in used and getattr(options, name) != parser.get_default(name)]
    if useless:
        own = [f"--{name}" for name in ("published", "out") if name in used and options.what not in tables]
        takes = f"; it takes {' and '.join(own)}" if own else ""
        raise ValueError(f"--{useless[0]} does nothing for {options.what}{takes}: leave it out")


def _used(what: str, of_cells: list[str], tables: Mapping[str, Table]) -> Collection[str]:
    """The options that matter; --list and --show of what has no cells say that it has none."""
    if what in tables:
        return of_cells
    if what == "merge":
        return ("out",)
    if what in STUDIES:
        return ("list", "show")
    return ("list", "show", "out", *(["published"] if what in PUBLISHED else []))
