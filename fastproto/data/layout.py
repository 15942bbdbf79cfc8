"""How a folder of pictures is laid out: its parts, their classes, and the pictures of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from .tree import SUFFIXES, File, Folder, Leftovers, class_key, listing, part_of, pictures_below, plural, shown

WORDS = {"train": "training", "val": "validation", "test": "test"}


@dataclass
class Part:
    """One part of the data: its folder, and the class folders by :func:`fastproto.data.tree.class_key`."""

    folder: Folder
    classes: dict[str, Folder]


@dataclass
class Layout:
    """The parts of a data set by ``train``, ``val`` and ``test``; a flat set has ``train`` alone."""

    top: Folder
    left: Leftovers
    parts: dict[str, Part] = field(default_factory=dict)
    flat: bool = True
    owners: dict[tuple[int, int], tuple[str, str, Path]] = field(
        default_factory=dict
    )  # file -> its part, class and path


def find_layout(top: Path, unused: Collection[str] = ()) -> Layout:
    """The parts and class folders below ``top``, without ``unused`` ones; :func:`pictures_of` lists the pictures.

    Raises:
        ValueError: no training folder beside others, two folders for one part, a part or a set with too few classes,
            one folder under two names, or held-out classes that are not trained.
    """
    root, left = Folder.at(top), Leftovers(top)
    layout = Layout(root, left)
    inside = listing(root, left)
    every = [*inside.folders, *inside.linked]
    folders = [folder for folder in every if folder.path.name not in unused]
    for folder in every:
        if folder.path.name in unused:
            left.add("folder beside the parts", folder.path)
    parts = _parts(root, folders)
    layout.flat = not parts
    _leave_files(inside.files, left, top)
    if layout.flat:
        layout.parts["train"] = Part(root, _classes(root, folders, 2))
        return layout
    for folder in folders:
        if part_of(folder.path.name) is None:
            left.add("folder beside the parts", folder.path)
    for name, folder in parts.items():
        below = listing(folder, left)
        classes = _classes(folder, [*below.folders, *below.linked], 2 if name == "train" else 1)
        _leave_files(below.files, left, top)
        layout.parts[name] = Part(folder, classes)
    _check_known(layout)
    return layout


def _parts(root: Folder, folders: list[Folder]) -> dict[str, Folder]:
    """The folder of each part, or nothing for a flat set."""
    named: dict[str, list[Folder]] = {}
    for folder in folders:
        if part := part_of(folder.path.name):
            named.setdefault(part, []).append(folder)
    if not named:
        return {}
    if "train" not in named:
        name = next(iter(named.values()))[0].path.name
        raise ValueError(
            f"the folder {shown(str(root.path))} has {shown(name)}/ and no train/: name the training folder 'train', "
            f"or rename {shown(name)}/ if it is a class"
        )
    if set(named) == {"train"} and len(folders) > len(named["train"]) and not any(map(_has_folders, named["train"])):
        return {}  # 'train' is a class, such as pictures of trains
    for part, found in named.items():
        if len(found) > 1:
            names = " and ".join(shown(folder.path.name) for folder in found)
            raise ValueError(
                f"the folder {shown(str(root.path))} has {names}, all names of the {WORDS[part]} part: keep one of them"
            )
    parts = {part: named[part][0] for part in WORDS if part in named}
    _check_apart(list(parts.values()), "be trained and tested on at once")
    return parts


def _has_folders(folder: Folder) -> bool:
    below = listing(folder, Leftovers(folder.path))
    return bool(below.folders or below.linked)


def _check_apart(folders: list[Folder], meaning: str) -> None:
    """Raise ValueError if two of them are one folder under two names."""
    seen: dict[str, Folder] = {}
    for folder in folders:
        other = seen.setdefault(folder.real, folder)
        if other is not folder:
            raise ValueError(
                f"the folders {shown(str(other.path))} and {shown(str(folder.path))} are the same folder, and nothing "
                f"may {meaning}: remove the link"
            )


def _classes(root: Folder, folders: list[Folder], least: int) -> dict[str, Folder]:
    classes: dict[str, Folder] = {}
    for folder in folders:
        other = classes.setdefault(class_key(folder.path.name), folder)
        if other is not folder:
            raise ValueError(
                f"the class folders {other.path.name!a} and {folder.path.name!a} in {shown(str(root.path))} "
                "are one name in two encodings of Unicode: put their pictures into one folder"
            )
    if len(classes) < least:
        raise ValueError(
            f"the folder {shown(str(root.path))} has {len(classes)} class folders"
            + (f" ({shown(folders[0].path.name)})" if folders else "")
            + f": give a folder with at least {least}"
        )
    _check_apart(folders, "belong to two classes")
    return dict(sorted(classes.items()))


def _leave_files(files: list[File], left: Leftovers, top: Path) -> None:
    for file in files:
        if file.path.suffix.lower() in SUFFIXES:
            left.add("picture outside the class folders", file.path)
        elif file.path != top / "classes.tsv":
            left.add("file of unknown kind", file.path)


def _check_known(layout: Layout) -> None:
    known = layout.parts["train"].classes
    for part in layout.parts.values():
        unknown = [folder for key, folder in part.classes.items() if key not in known]
        if unknown:
            raise ValueError(
                f"the folder {shown(str(unknown[0].path))} is no class of the training folder: "
                "use the same names of class folders in train, val and test"
            )


def pictures_of(layout: Layout, part: str, classes: list[str]) -> list[list[File]]:
    """The picture files of each class in one part.

    Raises:
        ValueError: a class without training pictures, a part without any, or a file that is also in another class or
            part, by a link of any sort.
    """
    folders = layout.parts[part].classes
    found = []
    for key in classes:
        files = pictures_below(folders[key], layout.left) if key in folders else []
        if not files and part == "train":
            raise _no_pictures(folders[key])
        for file in files:
            _claim(layout, file, part, key)
        found.append(files)
    if not any(found):
        raise _no_pictures(layout.parts[part].folder)
    return found


def _claim(layout: Layout, file: File, part: str, key: str) -> None:
    old_part, old_class, path = layout.owners.setdefault(file.identity, (part, key, file.path))
    if old_part != part:
        raise ValueError(
            f"{shown(str(path))} and {shown(str(file.path))} are one file through a link, and nothing may be trained "
            "and tested on at once: remove one of them"
        )
    if old_class != key:
        raise ValueError(
            f"{shown(str(path))} and {shown(str(file.path))} are one file through a link, in two classes: "
            "remove one of them"
        )


def _no_pictures(folder: Folder) -> ValueError:
    known = " ".join(sorted(SUFFIXES))
    return ValueError(f"the folder {shown(str(folder.path))} has no pictures ({known}): add some or remove it")


def notes(layout: Layout, classes: list[str], counts: dict[str, list[int]]) -> str:
    """One line, without a newline, on unused and missing pictures; empty if there is nothing to say."""
    said = []
    if left := str(layout.left):
        said.append(f"not used: {left}")
    for part, numbers in counts.items():
        without = [key for key, number in zip(classes, numbers, strict=True) if number == 0]
        if without:
            said.append(f"no {WORDS[part]} pictures of {_listed('class', without)}")
    folded: dict[str, list[str]] = {}
    for key in classes:
        folded.setdefault(key.casefold(), []).append(key)
    if alike := next((keys for keys in folded.values() if len(keys) > 1), None):
        said.append(f"classes that differ by case only: {', '.join(map(shown, alike))}")
    if layout.flat and (taken := [key for key in classes if part_of(key)]):
        said.append(f"{shown(taken[0])}/ is taken for a class: it has no class folders")
    return "; ".join(said)


def _listed(kind: str, names: list[str]) -> str:
    return f"{len(names)} {plural(kind, len(names))} ({shown(names[0])}{', ...' if len(names) > 1 else ''})"
