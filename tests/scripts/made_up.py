"""Records that no run has made."""

from __future__ import annotations

from typing import Any

from lib.reproduce.cells import FLOAT32, Cell
from lib.reproduce.records import KEYS


def made_up(
    method: str,
    dim: int,
    test: float,
    *,
    table: str = "table1",
    data: str = "cifar100",
    recipe: str = "cnn",
    epochs: int = 20,
    seed: int = 0,
    overrides: tuple[tuple[str, str], ...] = (),
    precision: str = FLOAT32,
    moved: tuple[float | None, ...] = (None, 0.5, 0.25, 0.125),
    **changed: Any,
) -> dict[str, Any]:
    """A record of a cell with this test accuracy and these shares of labels that moved."""
    cell = Cell(table, method, data, dim, recipe, epochs, seed, overrides, precision)
    curve = [
        {"epoch": epoch, "train_loss": 1.0, "validation": test * (epoch + 1) / len(moved), "moved": share}
        for epoch, share in enumerate(moved)
    ]
    known = dict.fromkeys(KEYS, 0.5) | {"cell": cell.to_dict(), "test": test, "curve": curve, "device": "cpu"}
    settings = {"model.name": recipe, "optim.name": "adamw", "optim.lr": 0.01, "optim.epochs": epochs}
    known |= {"settings": settings | {"precision": precision}, "commit": "unknown", "seconds_per_epoch": 10.0}
    return known | changed
