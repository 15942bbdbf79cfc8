"""Lists what lies below a folder: the files to read, and the entries that are left over."""

from __future__ import annotations

import os
import re
import stat
import sys
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Written by file servers, archives and systems; compared without regard to case.
SYSTEM = frozenset(
    {"@eadir", "@recycle", "#recycle", "$recycle.bin", "__macosx", "__pycache__", "lost+found"}
    | {"system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
PARTS = {
    "train": ("train", "training", "train_set", "training_set", "trainset"),
    "val": ("val", "valid", "validation", "validate", "dev", "val_set", "validation_set", "valset"),
    "test": ("test", "testing", "tests", "eval", "evaluation", "test_set", "testing_set", "testset"),
}
"""Usual names, in any case, of the folders that hold a part of the data."""


def part_of(name: str) -> str | None:
    """``train``, ``val`` or ``test`` for one of its usual names, None for any other name."""
    return next((part for part, names in PARTS.items() if name.casefold() in names), None)


def class_key(name: str) -> str:
    """The name of a class folder in Unicode's composed form: systems differ in how they write an accent."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """The name, escaped if it cannot be printed on one line."""
    return name if name.isprintable() else ascii(name)[1:-1]


class Leftovers:
    """Unused entries below ``top``: the number of each kind, and the first of it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.count: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, kind: str, path: Path) -> None:
        self.count[kind] = self.count.get(kind, 0) + 1
        self.first.setdefault(kind, shown(os.path.relpath(path, self.top)))

    def __str__(self) -> str:
        """For instance ``3 hidden folders (cat/.git, ...), 1 file of unknown kind (notes.txt)``; empty for nothing."""
        return ", ".join(
            f"{count} {plural(kind, count)} ({self.first[kind]}{', ...' if count > 1 else ''})"
            for kind, count in self.count.items()
        )


def plural(kind: str, count: int) -> str:
    return kind if count == 1 else re.sub(r"^((?:\w+ )*?)(folder|file|picture|link|class)\b", _many, kind, count=1)


def _many(found: re.Match[str]) -> str:
    return found[0] + ("es" if found[0].endswith("s") else "s")


@dataclass(frozen=True)
class Folder:
    """A folder and its path with links resolved."""

    path: Path
    real: str

    @classmethod
    def at(cls, path: Path) -> Folder:
        return cls(path, os.path.realpath(path))


@dataclass(frozen=True)
class File:
    """A regular file; two names of one file, through links of any sort, have the same ``identity``."""

    path: Path
    identity: tuple[int, int]
    size: int


@dataclass
class Listing:
    """The visible entries of one folder, sorted by name."""

    folders: list[Folder] = field(default_factory=list)
    linked: list[Folder] = field(default_factory=list)  # links to folders
    files: list[File] = field(default_factory=list)


def listing(folder: Folder, left: Leftovers) -> Listing:
    """The entries of one folder; hidden ones, broken links and links to a folder above are left over."""
    found = Listing()
    with os.scandir(folder.path) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = folder.path / entry.name
        if entry.name.startswith(".") or entry.name.casefold() in SYSTEM:
            sort = "hidden" if entry.name.startswith(".") else "system"
            left.add(f"{sort} {'folder' if entry.is_dir() else 'file'}", path)
            continue
        try:
            facts = entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            left.add("link to nothing", path)
            continue
        except OSError:  # a link to itself
            if not entry.is_symlink():
                raise
            left.add("link to nothing", path)
            continue
        if stat.S_ISREG(facts.st_mode):
            found.files.append(File(path, (facts.st_dev, facts.st_ino), facts.st_size))
        elif not stat.S_ISDIR(facts.st_mode):
            left.add("file that is a pipe or a device", path)
        elif not entry.is_symlink():
            found.folders.append(Folder(path, os.path.join(folder.real, entry.name)))
        elif _leads_up(linked := Folder.at(path), folder):
            left.add("link to a folder above it", path)
        else:
            found.linked.append(linked)
    return found


def print_note(text: str) -> None:
    """Print one line on standard error, on rank 0 only; nothing for an empty text."""
    if text and is_first_rank():
        print(f"note: {text}", file=sys.stderr)


def is_first_rank() -> bool:
    """Whether no launcher has made this process another rank than 0."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))
    return all(rank == "0" for rank in ranks)


def _leads_up(linked: Folder, folder: Folder) -> bool:
    return os.path.commonpath([linked.real, folder.real]) == linked.real


def pictures_below(top: Folder, left: Leftovers) -> list[File]:
    """The picture files of a class folder, as :func:`files_below`.

    Raises:
        ValueError: the class folder holds folders of several parts, such as train and test.
    """
    return files_below(top, left, SUFFIXES, check=_check_no_parts)


def files_below(
    top: Folder,
    left: Leftovers,
    suffixes: frozenset[str],
    *,
    check: Callable[[Folder, Listing], None] | None = None,
) -> list[File]:
    """The files of a folder and of the folders in it, links included, sorted by path; none twice.

    Args:
        suffixes: in lower case; files with others are left over.
        check: called with ``top`` and its listing.
    """
    seen, found = {top.real}, {}
    waiting, links = [top], deque[Folder]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.popleft()
        below = listing(folder, left)
        if folder is top and check is not None:
            check(top, below)
        for file in below.files:
            if file.path.suffix.lower() not in suffixes:
                left.add("file of unknown kind", file.path)
            elif file.identity in found:
                left.add("link to a file read before", file.path)
            else:
                found[file.identity] = file
        # Links come last, so that a file inside the folder is read under its own path.
        for more, queue in ((reversed(below.folders), waiting), (below.linked, links)):
            for inner in more:
                if inner.real in seen:
                    left.add("link to a folder read before", inner.path)
                else:
                    seen.add(inner.real)
                    queue.append(inner)
    return sorted(found.values(), key=lambda file: file.path.parts)


def _check_no_parts(top: Folder, below: Listing) -> None:
    inside = [inner.path for inner in [*below.folders, *below.linked] if part_of(inner.path.name)]
    if len({part_of(path.name) for path in inside}) > 1:
        first, second = (shown(path.name) for path in inside[:2])
        raise ValueError(
            f"the class folder {shown(str(top.path))} holds the parts {first} and {second}: "
            "move them to train/<class> and test/<class>"
        )
