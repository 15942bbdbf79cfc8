"""The passes of the Gaussian potential in blocks, at every precision, against the float64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastproto import reference
from fastproto.cpu.gaussian_blocks import Blocks
from fastproto.cpu.gaussian_potential import HIGH_MAX, ROUNDED_MIN_DIM, gaussian_potential, may_round
from fastproto.cpu.hardware import Hardware
from fastproto.support.options import PRECISIONS

from ..helpers import SHAPES, assert_potential_as_accurate, unit_rows

ALLOWED = {"high": 1e-3, "medium": 1e-2}  # of the norm of the tangent gradient, at random unit rows
# several ragged blocks, on and off the diagonal, at test sizes
SMALL = {
    "plain": Blocks(side=13),
    "transposed": Blocks(transposed_from=0, transposed_side=13, inner=5),
}
# the rounded passes run on any processor: slow where its instructions are emulated, but with the same roundings
ROUNDED = {"bfloat16": Hardware(bfloat16=True, integers=False), "integers": Hardware(bfloat16=True, integers=True)}
small_blocks = pytest.mark.parametrize("blocks", SMALL.values(), ids=SMALL)
rounded = pytest.mark.parametrize("hardware", ROUNDED.values(), ids=ROUNDED)


def over_others(
    points: Tensor, others: Tensor, t: float, own: Tensor | None, weights: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    return gaussian_potential(points, others, t, own, weights, options.pop("precision", "highest"), **options)


def over_pairs(points: Tensor, t: float = 2.0, weights: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    return gaussian_potential(points, None, t, None, weights, options.pop("precision", "highest"), **options)


def tangent(pull: Tensor, points: Tensor) -> Tensor:
    pull, points = pull.double(), points.double()
    return pull - (pull * points).sum(1, keepdim=True) * points


@small_blocks
@pytest.mark.parametrize(("m", "c", "d"), SHAPES)
@pytest.mark.parametrize("t", [0.5, 2.0, 128.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_points_on_others(m: int, c: int, d: int, t: float, weighted: bool, blocks: Blocks) -> None:
    others = unit_rows(c, d)
    self_index = torch.randperm(c)[:m] if m <= c else None
    points = others[self_index] if self_index is not None else unit_rows(m, d)
    weights = torch.rand(c) if weighted else None
    ours = over_others(points, others, t, self_index, weights, blocks=blocks)
    assert_potential_as_accurate(ours, points, others, t, self_index, weights)


@small_blocks
@pytest.mark.parametrize(("c", "d"), [(1, 2), (2, 2), (5, 3), (13, 10), (37, 17), (64, 32)])
@pytest.mark.parametrize("t", [0.5, 2.0, 15.9, 16.1, 512.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_full_set(c: int, d: int, t: float, weighted: bool, blocks: Blocks) -> None:
    w = unit_rows(c, d)
    weights = torch.rand(c) if weighted else None
    ours = over_pairs(w, t, weights, blocks=blocks)
    assert_potential_as_accurate(ours, w, w, t, torch.arange(c), weights)


@rounded
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("c", "d"), [(700, 96), (401, 131), (400, 256)])
def test_rounding_keeps_its_promise(precision: str, weighted: bool, c: int, d: int, hardware: Hardware) -> None:
    w = unit_rows(c, d)
    weights = torch.rand(c) if weighted else None
    heavy = None if weights is None else weights.double()
    own = torch.arange(c)
    options = {"precision": precision, "hardware": hardware, "blocks": Blocks(side=150, integer_min_ratio=0.4)}
    truth = reference.gaussian_potential(w.double(), w.double(), 2.0, own, heavy)
    full = over_pairs(w, weights=weights, **options)
    part = over_others(w[:50], w, 2.0, own[:50], weights, **options)
    for ours, rows in ((full, own), (part, own[:50])):
        expected = tangent(truth[1][rows], w[rows])
        error = (tangent(ours[1], w[rows]) - expected).norm() / expected.norm()
        assert 1e-7 < error <= ALLOWED[precision]
        torch.testing.assert_close(ours[0].double(), truth[0][rows], rtol=ALLOWED[precision], atol=0)


@rounded
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("subset", [False, True])
def test_loss_and_gradient_of_rounded_passes(precision: str, subset: bool, hardware: Hardware) -> None:
    """L_uni and its gradient from rounded passes; of a subset the other ends of the pairs need a second pass."""
    w, rows = unit_rows(700, 100), torch.arange(0, 700, 7)
    exact = w.double().requires_grad_()
    true = reference.uniformity_loss(exact, subset=rows if subset else None)
    true.backward()
    options = {"precision": precision, "hardware": hardware, "blocks": Blocks(side=150, integer_min_ratio=0.4)}
    if subset:
        potential, pull = over_others(w[rows], w, 2.0, rows, None, **options)
        place = torch.full((700,), -1).scatter(0, rows, torch.arange(len(rows)))
        gradient = over_others(w, w[rows], 2.0, place, None, **options)[1].index_add(0, rows, pull)
    else:
        potential, pull = over_pairs(w, **options)
        gradient = 2 * pull
    total = potential.double().sum()
    assert abs(float((total / (len(potential) * 699)).log() - true.detach())) <= ALLOWED[precision]
    assert exact.grad is not None
    error = (tangent(gradient, w) * (4 / total) - exact.grad).norm() / exact.grad.norm()
    assert 1e-7 < error <= ALLOWED[precision]


@pytest.mark.parametrize(
    ("precision", "t", "dtype", "dim", "expected"),
    [
        ("highest", 2.0, torch.float32, 512, False),
        ("medium", 2.0, torch.float32, 96, True),
        ("high", 2.0, torch.float32, 96, True),
        ("medium", 2.0, torch.float32, 95, False),
        ("high", 2.0, torch.float32, 95, False),
        ("medium", 2.0, torch.float64, 512, False),
        ("high", 2.0, torch.float64, 512, False),
        ("medium", 4.0, torch.float32, 96, True),
        ("medium", 4.1, torch.float32, 512, False),
        ("high", 4.1, torch.float32, 512, False),
        ("medium", 512.0, torch.float32, 512, False),
        # (2t)² at most a fifth of D: 20 t² <= D
        ("high", 2.5, torch.float32, 100, False),
        ("high", 2.5, torch.float32, 124, False),
        ("high", 2.5, torch.float32, 126, True),
        ("high", 4.0, torch.float32, 319, False),
        ("high", 4.0, torch.float32, 321, True),
        ("medium", 2.5, torch.float32, 100, True),
    ],
)
def test_what_may_be_rounded(precision: str, t: float, dtype: torch.dtype, dim: int, expected: bool) -> None:
    assert may_round(precision, t, dtype, dim) == expected


@rounded
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_what_is_never_rounded(precision: str, hardware: Hardware) -> None:
    """Sharp potentials, short rows and float64; for ``high`` also potentials that are sharp for their dimension."""
    w = unit_rows(40, 100)
    assert ROUNDED_MIN_DIM <= 100 < 5.0**2 / HIGH_MAX
    sharp = [(w, 2.5)] if precision == "high" else []
    for rows, t in ((w, 4.1), (w, 512.0), (w.double(), 2.0), (unit_rows(40, 95), 2.0), *sharp):
        for ours, plain in zip(
            over_pairs(rows, t, precision=precision, hardware=hardware), over_pairs(rows, t), strict=True
        ):
            assert ours.dtype == rows.dtype and torch.equal(ours, plain)
    slow = Hardware(bfloat16=False, integers=False)
    assert torch.equal(over_pairs(w, precision=precision, hardware=slow)[1], over_pairs(w)[1])
    assert not torch.equal(over_pairs(w, precision=precision, hardware=hardware)[1], over_pairs(w)[1])


@rounded
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("t", [2.0, 512.0])
def test_coincident_points(precision: str, t: float, hardware: Hardware) -> None:
    w = torch.nn.functional.normalize(torch.ones(6, 100), dim=1)
    potential, pull = over_pairs(w, t, precision=precision, hardware=hardware, blocks=Blocks(integer_min_ratio=0.01))
    torch.testing.assert_close(potential, torch.full((6,), 5.0), rtol=3e-2, atol=0)
    torch.testing.assert_close(pull, 5 * w, rtol=3e-2, atol=0)


@pytest.mark.parametrize("rows", ["close pairs", "axes"])
def test_integers_are_left_where_their_steps_are_coarse(rows: str) -> None:
    w = unit_rows(800, 128)
    w[:100] = w[100:200] if rows == "close pairs" else torch.eye(128)[:100]
    found = {name: over_pairs(w, precision="medium", hardware=hardware)[1] for name, hardware in ROUNDED.items()}
    truth = reference.gaussian_potential(w.double(), w.double(), 2.0, torch.arange(800), None)
    for pull in found.values():
        expected = tangent(truth[1], w)
        assert (tangent(pull, w) - expected).norm() <= ALLOWED["medium"] * expected.norm()
    # spiky rows are not turned into integers at all; a close pair costs its block the integers of the second product
    assert torch.equal(found["bfloat16"], found["integers"]) == (rows == "axes")


@rounded
@pytest.mark.parametrize("precision", PRECISIONS)
def test_five_runs_same_bits_and_no_sight_of_rotations(precision: str, hardware: Hardware) -> None:
    w = unit_rows(420, 100)
    options = {"precision": precision, "hardware": hardware, "blocks": Blocks(integer_min_ratio=0.4)}
    first = over_pairs(w, **options)
    for _ in range(4):
        again = over_pairs(w, **options)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    turn = torch.linalg.qr(torch.randn(100, 100, dtype=torch.float64))[0]
    turned = over_pairs((w.double() @ turn).float(), **options)
    allowed = ALLOWED.get(precision, 1e-5)
    torch.testing.assert_close(turned[0], first[0], rtol=allowed, atol=0)
    back = tangent(turned[1], w.double() @ turn) @ turn.T
    assert (back - tangent(first[1], w)).norm() <= 2 * allowed * tangent(first[1], w).norm()


@small_blocks
def test_strided_rows(blocks: Blocks) -> None:
    wide = torch.zeros(30, 8)
    wide[:, ::2] = unit_rows(30, 4)
    ours, packed = over_pairs(wide[:, ::2], blocks=blocks), over_pairs(wide[:, ::2].contiguous(), blocks=blocks)
    for a, b in zip(ours, packed, strict=True):
        torch.testing.assert_close(a, b)
