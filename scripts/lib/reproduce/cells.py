"""A cell: one training run of a table. A filter: the cells that a user asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastproto.support.spelling import nearest, shown

Overrides = tuple[tuple[str, str], ...]
Budget = tuple[str, int, str]  # recipe, epochs, precision
FLOAT32 = "32-true"


@dataclass(frozen=True)
class Cell:
    """One training run.

    Args:
        table: where its record is kept; other tables may show it too.
        method: of :data:`lib.reproduce.methods.METHODS`.
        data: of :data:`lib.reproduce.recipes.DATA`.
        dim: D of the metric space.
        recipe: backbone and optimiser, of :data:`lib.reproduce.recipes.RECIPES`.
        overrides: settings of fastproto-train beside those, such as ("head.scale", "1").
        precision: of fastproto-train.
    """

    table: str
    method: str
    data: str
    dim: int
    recipe: str
    epochs: int
    seed: int = 0
    overrides: Overrides = ()
    precision: str = FLOAT32

    @property
    def kind(self) -> tuple[object, ...]:
        """What is measured, whatever the budget and the seed."""
        return self.table, self.data, self.dim, self.method, self.overrides

    @property
    def budget(self) -> Budget:
        """What it is trained with."""
        return self.recipe, self.epochs, self.precision

    @property
    def row(self) -> tuple[object, ...]:
        """What the seeds of a cell have in common."""
        return self.kind, self.budget

    @property
    def label(self) -> str:
        """The method with its overrides: ``dynamic, renewals_per_epoch 10``."""
        return ", ".join([self.method, *(f"{key.rpartition('.')[2]} {value}" for key, value in self.overrides)])

    @property
    def backbone(self) -> str:
        """The recipe, with the precision unless that is float32: ``cnn, bf16-mixed``."""
        return self.recipe + in_words(self.precision)

    @property
    def name(self) -> str:
        """Its file name, without a suffix."""
        changed = [f"{key.rpartition('.')[2]}={value}" for key, value in self.overrides]
        parts = [self.data, f"d{self.dim}", self.method, *changed, self.backbone.replace(", ", "-"), f"e{self.epochs}"]
        return "-".join([*parts, f"seed{self.seed}"])

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**vars(self), "overrides": dict(self.overrides)}


def in_words(precision: str) -> str:
    """``, bf16-mixed``; nothing for float32, the default."""
    return "" if precision == FLOAT32 else f", {precision}"


def cell_of(values: Mapping[str, object]) -> Cell:
    """The inverse of :meth:`Cell.to_dict`.

    Raises:
        TypeError, KeyError, AttributeError: other keys than a cell has.
    """
    overrides = values["overrides"]
    assert isinstance(overrides, dict)
    return Cell(**{**values, "overrides": tuple(overrides.items())})  # type: ignore[arg-type]  # read from JSON


@dataclass(frozen=True)
class Place:
    """The folder of ``--out``: where records, run folders and logs are."""

    out: Path

    def record(self, cell: Cell) -> Path:
        return self.out / "records" / cell.table / f"{cell.name}.json"

    def run(self, cell: Cell) -> Path:
        return self.out / "runs" / cell.table / cell.name

    def log(self, cell: Cell) -> Path:
        """What the run says: every attempt, one after another."""
        return self.out / "runs" / cell.table / f"{cell.name}.log"

    def machine(self, cell: Cell) -> Path:
        """What its last start ran on."""
        return self.out / "runs" / cell.table / f"{cell.name}.machine.json"


# --- filters ---------------------------------------------------------------------------------------------------------

KEYS = {"data": "data", "d": "dim", "method": "method", "seed": "seed", "epochs": "epochs", "recipe": "recipe"}
OPTIONS = {"epochs": "--epochs {}", "seed": "--seeds {}", "recipe": "--recipe paper or --recipe cnn"}
"""How cells are asked for that a table does not name, by their keys in a filter."""


def read_filter(text: str) -> dict[str, str]:
    """``cifar100,d=10,method=dynamic`` as attributes of a cell; a part without = is the data.

    Raises:
        ValueError: a key that a cell has not, one without a value, or one that is there twice.
    """
    wanted: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        key, value = (key.lower(), value) if equals else ("data", key)
        if key not in KEYS or not value:
            near = nearest(key, KEYS)
            hint = f"did you mean {near}=?" if near and key not in KEYS else f"expected DATA and {'=, '.join(KEYS)}="
            raise ValueError(f"--cell {shown(text)}: {shown(part)} says nothing of a cell; {hint}")
        if KEYS[key] in wanted:
            raise ValueError(f"--cell {shown(text)} has {key} twice; expected one value: give --cell once for each")
        wanted[KEYS[key]] = value
    return wanted


def choose(cells: list[Cell], filters: list[str]) -> list[Cell]:
    """The cells that any of the filters asks for, in their order; all where there is no filter.

    Raises:
        ValueError: a filter that no cell fits.
    """
    if not filters:
        return cells
    chosen: set[Cell] = set()
    for text in filters:
        wanted = read_filter(text)
        found = [cell for cell in cells if all(str(getattr(cell, key)) == value for key, value in wanted.items())]
        if not found:
            raise ValueError(f"--cell {text}: no cell fits; {_known(cells, wanted)}")
        chosen.update(found)
    return [cell for cell in cells if cell in chosen]


def _known(cells: list[Cell], wanted: Mapping[str, str]) -> str:
    """What the cells have where the filter asks for something that none has."""
    names = {attribute: key for key, attribute in KEYS.items()}
    for attribute, value in wanted.items():
        has = list(dict.fromkeys(str(getattr(cell, attribute)) for cell in cells))
        if value not in has:
            option = OPTIONS.get(names[attribute], "").format(value)
            others = f"; others are asked for with {option}" if option else ""
            return f"expected {names[attribute]} to be one of {', '.join(has)}{others}"
    return "its parts do not occur together: --list shows all cells"
