"""The Gaussian potential kernel against the float64 reference: on a GPU, or under Triton's interpreter without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastproto import reference

from ..kernel_device import DEVICE, REPEATS, needs_cuda, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels import gaussian_potential as op
from fastproto_kernels.lib import tile_sizes as tiles
from fastproto_kernels.lib.common import ROW_PAD

from ..helpers import assert_potential_as_accurate, unit_rows

SMALL = tiles.Tile(32, 32)  # the interpreter pays for every tile: these keep a test under a second
SLICED = tiles.Tile(32, 32, block_d=256, block_k=256)

# float32-like products of halves: the tensor cores cut off low bits of their sums, the interpreter does not
HALVES_CRUMB = 2e-6 if DEVICE.type == "cpu" else 2e-5

# (M, C, D): aligned, ragged, prime, the smallest, one row, wide and beyond what one program holds
SHAPES = [(128, 64, 32), (40, 70, 10), (31, 37, 17), (1, 1, 2), (1, 300, 3), (65, 33, 100), (33, 40, 513)]


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def tile_of(dim: int, precision: str) -> tiles.Tile | None:
    if DEVICE.type == "cuda":
        return None  # what ships
    if dim > tiles.RESIDENT_MAX_D:
        return SLICED
    if precision in ("highest", "tf32", "tf32x3"):
        return tiles.Tile(32, 32, block_d=tiles.width_of(dim), block_k=tiles.width_of(dim))
    return SMALL


def check(
    points: Tensor, others: Tensor, *, t: float, precision: str, crumb: float = 1e-6, **more: Tensor | None
) -> None:
    ours = run(points, others, t=t, precision=precision, **more)
    assert_potential_as_accurate(ours, points, others, t, more.get("self_index"), more.get("weights"), crumb)


def run(
    points: Tensor, others: Tensor, *, precision: str, parts: int | None = None, **more: object
) -> tuple[Tensor, Tensor]:
    tile = tile_of(points.shape[1], precision)
    return op.gaussian_potential(points, others, precision=precision, tile=tile, parts=parts, **more)


def rows(count: int, dim: int) -> Tensor:
    return unit_rows(count, dim).to(DEVICE)


def some_index(m: int, c: int) -> Tensor:
    return torch.randint(0, c, (m,), device=DEVICE)


def tangent(points: Tensor, pull: Tensor) -> Tensor:
    p, x = points.double(), pull.double()
    return x - (x * p).sum(1, keepdim=True) * p


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", ["highest", "higher"])
def test_as_accurate_as_torch_in_float32(shape: tuple[int, int, int], precision: str) -> None:
    m, c, dim = shape
    crumb = 1e-6 if precision == "highest" else HALVES_CRUMB
    check(rows(m, dim), rows(c, dim), t=2.0, precision=precision, crumb=crumb, self_index=some_index(m, c))


@pytest.mark.parametrize("precision", ["highest", "higher", "tf32x3"])
@pytest.mark.parametrize("with_self", [False, True])
@pytest.mark.parametrize("with_weights", [False, True])
def test_each_argument_present_and_absent(precision: str, with_self: bool, with_weights: bool) -> None:
    if precision == "higher" and with_weights and DEVICE.type == "cpu":
        pytest.skip("weights take bfloat16 halves, which the interpreter does not have")
    points, others = rows(40, 12), rows(70, 12)
    weights = torch.randn(70, device=DEVICE) if with_weights else None
    index = some_index(40, 70) if with_self else None
    crumb = 1e-6 if precision == "highest" else HALVES_CRUMB
    if precision == "higher" and with_weights:
        crumb = 1e-4  # two bfloat16 halves hold 16 bits
    check(points, others, t=2.0, precision=precision, crumb=crumb, self_index=index, weights=weights)


@pytest.mark.parametrize("parts", [1, 2, 5, 9])
def test_parts_of_the_sweep_add_up(parts: int) -> None:
    points, others, index = rows(33, 8), rows(150, 8), some_index(33, 150)
    potential, pull = run(points, others, t=2.0, precision="higher", self_index=index, parts=parts)
    truth = reference.gaussian_potential(points.double(), others.double(), 2.0, index)
    torch.testing.assert_close(potential.double(), truth[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pull.double(), truth[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "bound"), [("high", 1e-3), ("medium", 1e-2)])
@pytest.mark.parametrize(("count", "dim"), [(500, 64), (700, 16), (300, 2)])
def test_tangent_gradient_within_the_promised_error(precision: str, bound: float, count: int, dim: int) -> None:
    w = rows(count, dim)
    some, index = w[:64], torch.arange(64, device=DEVICE)
    tile = tiles.Tile(64, 128) if DEVICE.type == "cpu" else None
    _, pull = op.gaussian_potential(some, w, t=2.0, precision=precision, self_index=index, tile=tile, parts=1)
    truth = tangent(some, reference.gaussian_potential(some.double(), w.double(), 2.0, index)[1])
    assert float((tangent(some, pull) - truth).norm() / truth.norm()) <= bound


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_own_pair_is_left_out_at_any_sharpness(precision: str) -> None:
    """At t = 100 what remains beside the self pair is below float32's rounding of it."""
    if precision != "highest" and DEVICE.type == "cpu":
        pytest.skip("sharp potentials take bfloat16 halves, which the interpreter does not have")
    w = torch.eye(40, 48, device=DEVICE)
    w[1, 0], w[1, 1] = 0.9375, (1 - 0.9375**2) ** 0.5
    index = torch.arange(40, device=DEVICE)
    potential, pull = run(w, w, t=100.0, precision=precision, self_index=index)
    truth = reference.gaussian_potential(w.double(), w.double(), 100.0, index)
    relative = 1e-4 if precision == "highest" else 0.1  # 2t times the error of a cosine
    torch.testing.assert_close(potential[:2].double(), truth[0][:2], rtol=relative, atol=0)
    torch.testing.assert_close(pull[0].double(), truth[1][0], rtol=relative, atol=1e-8)
    assert float(potential[2:].max()) < 1e-30


@pytest.mark.parametrize("precision", ["highest", pytest.param("higher", marks=needs_cuda)])
def test_centre_keeps_sharp_potentials_in_range(precision: str) -> None:
    """At t = 400 and cosines below 0.8 every g is below float32's range; moved to the largest cosine, none is lost."""
    w, t = rows(60, 5), 400.0
    index = torch.arange(60, device=DEVICE)
    cosines = (w.double() @ w.double().T).fill_diagonal_(-1)
    centre = cosines.max().float().reshape(1)
    potential, pull = run(w, w, t=t, precision=precision, self_index=index, centre=centre)
    g = torch.exp(2 * t * (cosines - centre.double())).fill_diagonal_(0)
    relative = 1e-3 if precision == "highest" else 2e-2  # 2t times the error of a cosine
    torch.testing.assert_close(potential.double(), g.sum(1), rtol=relative, atol=1e-30)
    torch.testing.assert_close(pull.double(), g @ w.double(), rtol=relative, atol=relative)
    assert float(potential.max()) > 0.99


def test_coincident_points_count_one_each() -> None:
    w = rows(1, 16).expand(50, 16)
    index = torch.arange(50, device=DEVICE)
    for precision in ("highest", "higher"):
        potential, pull = run(w, w, t=2.0, precision=precision, self_index=index)
        torch.testing.assert_close(potential, torch.full_like(potential, 49.0), rtol=1e-5, atol=0)
        torch.testing.assert_close(pull, 49 * w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["highest", "higher"])
def test_rows_that_are_not_contiguous(precision: str) -> None:
    wide = torch.randn(70, 40, device=DEVICE)
    points, others = wide[1::2, 3:15], wide.T[:30, 5:17]
    points, others = points / points.norm(dim=1, keepdim=True), others / others.norm(dim=1, keepdim=True)
    strided = torch.empty(len(others), 24, device=DEVICE)[:, ::2]
    strided.copy_(others)
    check(points.T.contiguous().T, strided, t=2.0, precision=precision, crumb=HALVES_CRUMB)


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
def test_half_precision_rows(dtype: torch.dtype) -> None:
    points, others = rows(40, 24).to(dtype), rows(50, 24).to(dtype)
    check(points, others, t=2.0, precision="highest", crumb=2e-6)


@needs_cuda
@pytest.mark.parametrize(("precision", "bound"), [("medium", 1e-3), ("high", 1e-3), ("higher", 1e-3)])
@pytest.mark.parametrize("dim", [64, 128, 256, 512, 768])
def test_bfloat16_halves_where_float16_would_underflow(precision: str, bound: float, dim: int) -> None:
    w = rows(2000, dim)
    index = torch.arange(2000, device=DEVICE)
    _, pull = run(w, w, t=5.0, precision=precision, self_index=index)
    truth = tangent(w, reference.gaussian_potential(w.double(), w.double(), 5.0, index)[1])
    assert float((tangent(w, pull) - truth).norm() / truth.norm()) <= bound


@needs_cuda
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
@pytest.mark.parametrize("dim", [64, 128, 256, 512, 1024])
def test_every_tile_that_ships_on_this_chip(precision: str, dim: int) -> None:
    w, index = rows(1111, dim), torch.randperm(1111, device=DEVICE)
    bound = {"highest": 1e-5, "higher": 1e-5, "tf32x3": 1e-4, "high": 1e-3}.get(precision, 1e-2)
    potential, pull = run(w, w, t=2.0, precision=precision, self_index=index)
    truth = reference.gaussian_potential(w.double(), w.double(), 2.0, index)
    torch.testing.assert_close(potential.double(), truth[0], rtol=bound, atol=0)
    expected = tangent(w, truth[1])
    assert float((tangent(w, pull) - expected).norm() / expected.norm()) <= bound


@needs_cuda
def test_inside_a_cuda_graph() -> None:
    w, index = rows(300, 64), torch.arange(300, device=DEVICE)
    eager = run(w, w, t=2.0, precision="high", self_index=index)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(w, w, t=2.0, precision="high", self_index=index)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))


@pytest.mark.parametrize("precision", ["highest", "higher", "medium"])
def test_runs_have_the_same_bits(precision: str) -> None:
    points, others = rows(20, 20), rows(100, 20)
    first = run(points, others, t=2.0, precision=precision, parts=3)
    for _ in range(REPEATS):
        again = run(points, others, t=2.0, precision=precision, parts=3)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_parts_fill_the_chip_in_bounded_memory() -> None:
    tile = tiles.Tile(64, 64)
    assert tiles.parts_of_pass(1, 1, 1, tile) == 1
    assert tiles.parts_of_pass(1_000_000, 1_000_000, 1, tile) == 1
    assert tiles.parts_of_pass(64, 1_000_000, 1, tile) >= 100
    assert tiles.parts_of_pass(10_000, 10_000, 1, tile) > 1  # 157 programs would leave the second wave nearly empty
    for m, c in [(1, 50), (100, 100), (5000, 300), (20_000, 10**6)]:
        parts = tiles.parts_of_pass(m, c, 1, tile)
        assert parts == 1 or parts * -(-m // 64) <= 8 * 132
        assert parts <= -(-c // 64)


@pytest.mark.parametrize("family", [80, 90, 100])
@pytest.mark.parametrize("precision", tiles.PRECISIONS)
def test_tiles_fit_the_padded_operands(family: int, precision: str) -> None:
    for dim in [2, 16, 17, 64, 100, 128, 200, 256, 511, 512, 513, 700, 1024, 2000]:
        for t in (2.0, 50.0):
            width = tiles.width_of(dim)
            _, pieces = tiles.operands_for(precision, t, scaled=False)
            tile = tiles.tile_for(width, precision, pieces, family, weighted=t > 2)
            assert width >= max(dim, 16)
            assert ROW_PAD % tile.block_m == ROW_PAD % tile.block_n == 0
            if tile.block_d:
                assert width % tile.block_d == width % tile.block_k == 0
            else:
                assert width <= tiles.RESIDENT_MAX_D


def test_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'highest', 'higher', 'high', 'medium'"):
        op.gaussian_potential(rows(2, 2), rows(2, 2), t=2.0, precision="float8")
