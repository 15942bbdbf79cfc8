"""Records: one JSON file for each cell that has ended, made from its run folder; records of several machines merge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from fastproto.support.atomic_files import write_whole
from lib.repository import ROOT, Record
from lib.reproduce.cells import Cell, cell_of

FORMAT = 1
KEYS = (
    *("format", "cell", "settings", "validation", "test", "test_top5", "seconds", "seconds_per_epoch", "curve"),
    *("versions", "device", "commit", "finished"),
)
TIMES = ("seconds", "seconds_per_epoch", "finished")
"""What differs between two runs of one cell on one machine; nothing else does."""


def write_record(path: Path, record: Record) -> None:
    """Write a record whole or not at all."""
    write_whole(path, lambda file: file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8"))


def read_record(path: Path) -> Record:
    """A record, with everything that one holds.

    Raises:
        ValueError: the file is no record, a damaged one, or one of a newer version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in KEYS if key not in record]
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}")
        cell = cell_of(record["cell"])
        if lacking:
            raise ValueError(f"it has no {lacking[0]}")
        if (cell.table, f"{cell.name}.json") != (path.parent.name, path.name):
            raise ValueError(f"it is of the cell {cell.table}/{cell.name}")
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} is no record that can be read ({reason}); expected one of format {FORMAT}: remove it, and "
            "scripts/reproduce writes it again from its run folder or trains the cell"
        ) from error
    return cast(Record, record)


def load_records(folders: Iterable[Path]) -> dict[Cell, Record]:
    """The records below ``FOLDER/records`` of all folders: of one cell the newest.

    Raises:
        ValueError: two records of one cell that were made with different settings, or a file that is no record.
    """
    found: dict[Cell, tuple[Record, Path]] = {}
    for folder in folders:
        for path in sorted((folder / "records").glob("*/*.json")):
            record = read_record(path)
            cell = cell_of(record["cell"])
            known = found.get(cell)
            if known is not None:
                before, now = (_of_either_layout(each["settings"], cell) for each in (known[0], record))
                _check_same(before, now, known[1], path)
            if known is None or record["finished"] > known[0]["finished"]:
                found[cell] = (record, path)
    return {cell: record for cell, (record, _) in found.items()}


def _of_either_layout(settings: Record, cell: Cell) -> Record:
    """The settings as if CIFAR were read from torchvision's files, also where it was a folder of pictures.

    Both have the same test pictures, as many training and validation pictures of each class and the same augmentation.
    Which pictures are validation, and in a long tail which are kept, differs, and so does the normalisation.
    """
    own = cell.data.partition("-lt-")[0]
    source = settings.get("data.name"), settings.get("data.augment")
    alike = [("image-folder", "crop_flip"), (own, "crop_flip"), (own, "auto")]
    if not own.startswith("cifar") or source not in alike:
        return settings
    return settings | {"data.name": own, "data.augment": "crop_flip"}


def _check_same(before: Record, now: Record, first: Path, second: Path) -> None:
    """A setting that only one of them has is newer than the other, and its default is what was done before."""
    for key in before.keys() & now.keys():
        if before[key] != now[key]:
            raise ValueError(
                f"{first} was made with {key} {before[key]} and {second} with {now[key]}; expected one cell to have "
                "the same settings everywhere: remove one of the two"
            )


def merge(sources: list[Path], out: Path) -> int:
    """Bring the newest records of all folders together below ``out``; return how many cells it then holds.

    Raises:
        ValueError: a folder without records, or as :func:`load_records`. Nothing is written then.
    """
    for source in sources:
        if not (source / "records").is_dir():
            raise ValueError(f"{source} holds no records; expected a folder that scripts/reproduce --out has written")
    records = load_records([out, *sources])
    for cell, record in records.items():
        write_record(out / "records" / cell.table / f"{cell.name}.json", record)
    return len(records)


def commit() -> str:
    """The commit of the repository, with -dirty where files differ from it; "unknown" without Git."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 and (ROOT / ".git").exists() else "unknown"
