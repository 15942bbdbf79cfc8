"""The largest scores of a sweep against float64 and a stable sort, on a GPU or under Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ..kernel_device import DEVICE, REPEATS, needs_cuda, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.lib import tile_sizes as tiles
from fastproto_kernels.lib.common import ROW_PAD
from fastproto_kernels.top_scores import MAX_PARTS, top_scores

from ..helpers import assert_as_accurate_as
from ..score_cases import CRUMB, SHAPES, rows, strided, tile_of


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def run(points: Tensor, others: Tensor, k: int, **options: Any) -> tuple[Tensor, Tensor]:
    return top_scores(points, others, k, **{"tile": tile_of(points.shape[1])} | options)


def check(
    points: Tensor, others: Tensor, k: int, prices: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Values as exact as torch's, and each index belongs to a score that is one of the k largest but for rounding."""
    scores, indices = run(points, others, k, prices=prices, **options)
    crumb = CRUMB[str(options.get("precision", "higher"))]
    p = 0.0 if prices is None else prices
    truth, single = points.double() @ others.double().T - p, points.float() @ others.float().T - p
    best = truth.sort(dim=1, descending=True, stable=True)
    assert scores.dtype == torch.float32 and indices.dtype == torch.int64
    assert_as_accurate_as(scores, single.sort(dim=1, descending=True).values[:, :k], best.values[:, :k], crumb)
    assert int(indices.min()) >= 0 and int(indices.max()) < len(others)
    assert all(len(row) == len(set(row)) for row in indices.tolist())
    assert bool((scores[:, 1:] <= scores[:, :-1]).all())
    found = truth.gather(1, indices)
    assert float((found - scores.double()).abs().max()) <= 2 * crumb * float(truth.abs().max().clamp_min(1))
    ends = torch.nn.functional.pad(best.values, (0, 1), value=-torch.inf)
    apart = (ends[:, :-1] - ends[:, 1:]).min(1).values > 4 * crumb  # rows whose order is beyond doubt
    assert torch.equal(indices[apart], best.indices[apart][:, :k])
    return scores, indices


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", ["highest", "higher"])
def test_as_accurate_as_torch(shape: tuple[int, int, int], precision: str) -> None:
    m, c, dim = shape
    check(rows(m, dim), rows(c, dim), min(c, 5), torch.randn(c, device=DEVICE), precision=precision)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 17, 32])
@pytest.mark.parametrize("priced", [False, True])
def test_every_k(k: int, priced: bool) -> None:
    check(rows(9, 12), rows(90, 12), k, torch.randn(90, device=DEVICE) if priced else None)


@pytest.mark.parametrize("precision", ["high", "medium", pytest.param("tf32x3", marks=needs_cuda)])
def test_other_precisions(precision: str) -> None:
    check(rows(40, 24), rows(70, 24), 4, precision=precision)


@pytest.mark.parametrize(("parts", "k"), [(2, 1), (3, 6), (2, 32), (7, 32)])
def test_parts_are_merged(parts: int, k: int) -> None:
    """Seven parts of 150 others in tiles of 32: some have fewer than 32 of them, the last have none."""
    points, others = rows(9, 8), rows(150, 8)
    several = check(points, others, k, parts=parts)
    assert all(map(torch.equal, run(points, others, k, parts=1), several))


@pytest.mark.parametrize("resident", [True, False])
def test_points_in_the_program_or_walked_over(resident: bool) -> None:
    points, others = rows(33, 300), rows(40, 300)
    check(points, others, 3, tile=tile_of(300, resident))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("priced", [False, True])
def test_scores_below_a_floor_are_left_out(parts: int, priced: bool) -> None:
    """A floor at a score itself keeps it; rows with none, with some, and with more scores above than places."""
    points, others = rows(40, 8), rows(90, 8)
    prices = 0.3 * torch.randn(90, device=DEVICE) if priced else None
    every, where = run(points, others, 6, prices=prices, parts=parts)
    floor = every[torch.arange(40), torch.arange(40) % 6].clone()  # row i has 1 + i modulo 6 of them, or so many places
    floor[::7], floor[3::7] = torch.inf, -torch.inf
    scores, indices = run(points, others, 6, prices=prices, floor=floor, parts=parts)
    kept = every >= floor[:, None]
    assert torch.equal(scores, torch.where(kept, every, -torch.inf))
    assert torch.equal(indices, torch.where(kept, where, -1))
    assert not kept[0].any() and kept[3].all() and kept[1:3].sum(1).tolist() == [2, 3]


@pytest.mark.parametrize("parts", [1, 3])
def test_the_lowest_index_wins_among_equals(parts: int) -> None:
    """Every other stands three times; a zero row meets scores 0 and -0 alone."""
    others = rows(40, 16).repeat(3, 1)
    points = torch.cat([rows(20, 16), torch.zeros(1, 16, device=DEVICE)])
    scores, indices = run(points, others, 7, parts=parts, precision="highest")
    for row in range(20):
        found, values = indices[row].tolist(), scores[row].tolist()
        assert found[0] < 40 and found[1:3] == [found[0] + 40, found[0] + 80] and len(set(values[:3])) == 1
        assert found[3] < 40 and found[4:6] == [found[3] + 40, found[3] + 80] and found[6] < 40
    assert indices[20].tolist() == list(range(7)) and not bool(scores[20].any())


def test_rising_scores_replace_every_key() -> None:
    """The worst order: every tile is better than all before it."""
    angles = torch.linspace(1.5, 0, 100, dtype=torch.float64)
    others = torch.stack([angles.cos(), angles.sin()], 1).float().to(DEVICE)
    check(others[-1:].expand(5, 2), others, 32)
    check(others[:1].expand(5, 2), others, 32)


def test_scores_below_zero_and_large_prices() -> None:
    points, others = rows(20, 6), rows(80, 6)
    check(points, others, 4, 1 + torch.rand(80, device=DEVICE))
    check(points, others, 4, -100 * torch.rand(80, device=DEVICE))


def test_rows_that_are_not_contiguous_and_halves() -> None:
    points, others = rows(20, 24), rows(50, 24)
    check(strided(points), others.T.contiguous().T, 3)
    check(points.half(), others.half(), 3)
    check(points[:1].expand(20, 24), strided(others), 3, strided(torch.randn(50, 1, device=DEVICE))[:, 0])


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")  # NumPy's maximum
def test_a_row_of_nan_disturbs_no_other_and_ends() -> None:
    points, others = rows(20, 6), rows(80, 6)
    clean = run(points, others, 4)
    points[3] = torch.nan
    scores, indices = run(points, others, 4)
    assert bool((scores[3] == -torch.inf).all()) and int(indices[3].min()) >= 0 and int(indices[3].max()) < 80
    others_rows = torch.arange(20, device=DEVICE) != 3
    assert torch.equal(scores[others_rows], clean[0][others_rows])
    assert torch.equal(indices[others_rows], clean[1][others_rows])


def test_an_empty_batch() -> None:
    scores, indices = run(rows(0, 6), rows(80, 6), 4)
    assert scores.shape == indices.shape == (0, 4) and indices.dtype == torch.int64


@pytest.mark.parametrize("k", [0, 6, 33])
def test_k_outside_its_range_says_the_range(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k is {k}; expected 1\.\."):
        run(rows(3, 4), rows(5 if k < 33 else 100, 4), k)


def test_runs_have_the_same_bits() -> None:
    points, others = rows(20, 20), rows(130, 20)
    first = run(points, others, 3, parts=3)
    for _ in range(REPEATS):
        assert all(torch.equal(a, b) for a, b in zip(first, run(points, others, 3, parts=3), strict=True))


@needs_cuda
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
@pytest.mark.parametrize("dim", [64, 128, 256, 512, 1024])
def test_every_tile_that_ships_on_this_chip(precision: str, dim: int) -> None:
    points, others = rows(1111, dim), rows(2222, dim)
    scores, indices = top_scores(points, others, 16, precision=precision)
    truth = points.double() @ others.double().T
    torch.testing.assert_close(scores.double(), truth.topk(16).values, rtol=0, atol=CRUMB.get(precision, 2e-3))
    torch.testing.assert_close(scores.double(), truth.gather(1, indices), rtol=0, atol=CRUMB.get(precision, 2e-3))


@pytest.mark.parametrize("family", [80, 90, 100])
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
def test_tiles_fit_the_padded_operands(family: int, precision: str) -> None:
    for dim in [2, 16, 17, 64, 100, 128, 200, 256, 511, 512, 513, 700, 1024, 4096]:
        width = tiles.width_of(dim)
        _, pieces = tiles.operands_for(precision, 0.0, scaled=False)
        tile = tiles.score_tile_for(width, precision, pieces, family)
        assert ROW_PAD % tile.block_m == ROW_PAD % tile.block_n == 0
        assert width % tile.block_k == 0 and tile.block_k >= 16


def test_the_second_launch_holds_all_keys_of_a_row() -> None:
    for tile in (tiles.Tile(64, 32), tiles.Tile(64, 64)):
        for m in (1, 64, 65, 1000, 8448, 8449, 100_000):
            for c in (1, 100, 8448, 8449, 50_000, 1_000_003):
                assert tiles.parts_of_pass(m, c, 1, tile) <= MAX_PARTS
