"""Lists the pictures of any folder, with labels where each lies in the folder of a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .folder import readable_names
from .tree import (
    PARTS,
    SUFFIXES,
    File,
    Folder,
    Leftovers,
    class_key,
    files_below,
    listing,
    part_of,
    pictures_below,
    print_note,
    shown,
)


@dataclass(frozen=True)
class PictureFolder:
    """Pictures in the order of their classes and paths.

    ``labels`` int64 [N] number ``class_names``, the class folders in the order of their names; None without them.
    """

    top: Path
    paths: list[Path]
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()


def list_pictures(top: Path, *, classes: bool = True) -> PictureFolder:
    """The pictures below a folder; one line on standard error names what is not read.

    Its folders are classes if no picture lies beside them, and if ``classes`` is set. ``classes.tsv`` in it or above it
    gives readable names.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no pictures, or folders of several parts, such as train and test, where classes are expected.
    """
    if not top.is_dir():
        raise FileNotFoundError(f"no folder {top}; expected a folder of pictures")
    root, left = Folder.at(top), Leftovers(top)
    below = listing(root, Leftovers(top))
    folders = sorted([*below.folders, *below.linked], key=lambda folder: class_key(folder.path.name))
    if not classes or not folders or any(file.path.suffix.lower() in SUFFIXES for file in below.files):
        found = PictureFolder(top, [file.path for file in files_below(root, left, SUFFIXES)])
    else:
        _check_one_part(top, folders)
        listing(root, left)  # for what lies beside the class folders
        found = _labelled(top, [(folder, pictures_below(folder, left)) for folder in folders])
    if not found.paths:
        raise ValueError(f"the folder {shown(str(top))} has no pictures ({' '.join(sorted(SUFFIXES))}): add some")
    print_note(f"not used: {left}" if str(left) else "")
    return found


def _check_one_part(top: Path, folders: list[Folder]) -> None:
    """Raise ValueError if the folders are parts of a data set, not classes."""
    names = {part: folder.path.name for folder in folders if (part := part_of(folder.path.name))}
    if len(names) > 1:
        one = next(names[part] for part in ("test", "val", "train") if part in names)
        found = " and ".join(shown(names[part]) for part in PARTS if part in names)
        raise ValueError(
            f"the folder {shown(str(top))} holds the parts {found}; "
            f"expected one of them, such as {shown(str(top / one))}"
        )


def _labelled(top: Path, classes: list[tuple[Folder, list[File]]]) -> PictureFolder:
    classes = [(folder, files) for folder, files in classes if files]
    table = next((path for path in (top / "classes.tsv", top.parent / "classes.tsv") if path.is_file()), top)
    names = readable_names(table, [class_key(folder.path.name) for folder, _ in classes])
    counts = torch.tensor([len(files) for _, files in classes], dtype=torch.int64)
    labels = torch.arange(len(classes)).repeat_interleave(counts)
    return PictureFolder(top, [file.path for _, files in classes for file in files], labels, names)
