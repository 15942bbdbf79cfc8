"""The recipes of this package: files of settings by name, such as ``cifar100-d50``. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import fastproto.recipes
from fastproto.support.spelling import shown
from fastproto.training.config_files import read_config

FOLDER = Path(fastproto.recipes.__file__).parent
CLASSES = "data.num_classes"


@dataclass(frozen=True)
class Recipe:
    """Settings by their flat keys such as ``optim.lr``, and how many classes they are for."""

    settings: dict[str, Any]
    classes: int


def recipe_names() -> list[str]:
    """All names, numbers in them in ascending order."""
    names = (file.stem for file in FOLDER.glob("*.yaml"))
    return sorted(names, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def read_recipe(name: str) -> Recipe:
    """A recipe by its name.

    Raises:
        ValueError: no such recipe; the nearest is named.
    """
    file = _file(name)
    settings = read_config(file)
    return Recipe(settings, settings.pop(CLASSES))


def described_recipes() -> list[str]:
    """A line for each recipe: its name, and what the first line of its file says."""
    names = recipe_names()
    width = max(map(len, names))
    return [f"{name:{width}}  {_first_line(_file(name))}" for name in names]


def _first_line(file: Path) -> str:
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _file(name: str) -> Path:
    names = recipe_names()
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "--recipe list prints them all"
        raise ValueError(f"unknown recipe {shown(name)}; {hint}")
    return FOLDER / f"{name}.yaml"
