"""The picture of confusions: any number of classes, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_array

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


def test_a_sparse_table_is_drawn_as_a_dense_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (5, 1500):
        pairs = rng.integers(0, count, (2, 4000))
        sparse = coo_array((np.ones(4000, int), pairs), shape=(count, count))
        names = [str(i) for i in range(count)]
        draw_confusion(sparse, names, tmp_path / "sparse.png", title="confusions")
        draw_confusion(sparse.toarray(), names, tmp_path / "dense.png", title="confusions")
        assert (tmp_path / "sparse.png").read_bytes() == (tmp_path / "dense.png").read_bytes()


def test_no_array_of_the_size_of_the_table(tmp_path: Path) -> None:
    count = 100_000
    labels = np.arange(count)
    table = coo_array((np.ones(count, int), (labels, labels)), shape=(count, count))
    tracemalloc.start()
    try:
        draw_confusion(table, [str(i) for i in labels], tmp_path / "confusion.png", title="confusions")
        assert tracemalloc.get_traced_memory()[1] < 1e9  # of 8e10 bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("shape", "names"), [((2, 3), 2), ((3, 3), 2), ((0, 0), 0)])
def test_tables_that_are_refused(shape: tuple[int, int], names: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names were given: expected \[C, C\] and C"):
        draw_confusion(np.zeros(shape), ["name"] * names, tmp_path / "x.png", title="")
    assert not list(tmp_path.iterdir())
