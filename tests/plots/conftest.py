"""Pictures are saved small, and the figures behind them are kept."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def dpi() -> int:
    """Dots an inch of what is saved: fewer than usual are quicker, and the same picture otherwise."""
    return 60


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch, dpi: int) -> list[Any]:
    """The figures that were saved, in order; without matplotlib the test is skipped."""
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    saved: list[Any] = []
    save = figure_class.savefig

    def spy(figure: object, file: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, file, **options | {"dpi": dpi})

    monkeypatch.setattr(figure_class, "savefig", spy)
    return saved


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would be saved; their files are empty, which is quicker."""
    from matplotlib.figure import Figure

    kept: list[Any] = []

    def keep(figure: Figure, file: Any, **_: object) -> None:
        kept.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept
