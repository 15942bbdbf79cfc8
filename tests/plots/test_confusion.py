"""The picture of confusions: any number of classes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastproto.plots import draw_confusion


@pytest.mark.parametrize("count", [1, 2, 12, 13, 41, 1001])
def test_any_number_of_classes(count: int, tmp_path: Path) -> None:
    counts = np.eye(count, dtype=int)
    counts[0] = 0  # a class without samples
    out = tmp_path / "confusion.png"
    draw_confusion(counts, [f"class {i}" for i in range(count)], out, title="confusions")
    with Image.open(out) as picture:
        red, _, blue = np.moveaxis(np.asarray(picture.convert("RGB"), int), 2, 0)
    assert (blue - red).max() > 80 or count == 1  # the diagonal


@pytest.mark.parametrize(("shape", "names"), [((2, 3), 2), ((3, 3), 2), ((0, 0), 0)])
def test_tables_that_are_refused(shape: tuple[int, int], names: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names were given: expected \[C, C\] and C"):
        draw_confusion(np.zeros(shape), ["name"] * names, tmp_path / "x.png", title="")
    assert not list(tmp_path.iterdir())
