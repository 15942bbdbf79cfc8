"""The Gaussian potential in blocks, at every precision, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastproto import reference
from fastproto.cpu import gaussian_potential as sweep
from fastproto.functional import uniformity_loss
from fastproto.ops import gaussian_potential as P

from ..helpers import SHAPES, assert_as_accurate_as, unit_rows

ALLOWED = {"high": 1e-3, "medium": 1e-2}  # of the norm of the tangent gradient, at random unit rows


@pytest.fixture(params=["few", "many"])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many":
        monkeypatch.setattr(sweep, "TURNED_FROM", 0)
    # several ragged blocks, on and off the diagonal, at test sizes
    monkeypatch.setattr(sweep._Sweep, "side", 13)
    monkeypatch.setattr(sweep._TurnedSweep, "side", 13)
    monkeypatch.setattr(sweep._TurnedSweep, "inner", 5)
    monkeypatch.setattr(sweep._InnerSweep, "side", 5)
    monkeypatch.setattr(sweep._InnerSweep, "inner", 5)


@pytest.fixture(params=["bfloat16", "integers"])
def rounded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the rounded paths on any processor: slow where they are emulated, but the same roundings."""
    monkeypatch.setattr(sweep, "quick_bfloat16", lambda device: True)
    monkeypatch.setattr(sweep, "quick_integers", lambda device: request.param == "integers")
    monkeypatch.setattr(sweep, "INTEGER_MIN_RATIO", 0.4)  # also at test sizes


def tangent(pull: Tensor, points: Tensor) -> Tensor:
    pull, points = pull.double(), points.double()
    return pull - (pull * points).sum(1, keepdim=True) * points


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("m", "c", "d"), SHAPES)
@pytest.mark.parametrize("t", [0.5, 2.0, 128.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_points_on_others(m: int, c: int, d: int, t: float, weighted: bool) -> None:
    others = unit_rows(c, d)
    self_index = torch.randperm(c)[:m] if m <= c else None
    points = others[self_index] if self_index is not None else unit_rows(m, d)
    weights = torch.rand(c) if weighted else None
    ours = P.gaussian_potential(points, others, t=t, self_index=self_index, weights=weights)
    torchs = reference.gaussian_potential(points, others, t, self_index, weights)
    heavy = None if weights is None else weights.double()
    truth = reference.gaussian_potential(points.double(), others.double(), t, self_index, heavy)
    for our, plain, true in zip(ours, torchs, truth, strict=True):
        assert_as_accurate_as(our, plain, true)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("c", "d"), [(1, 2), (2, 2), (5, 3), (13, 10), (37, 17), (64, 32)])
@pytest.mark.parametrize("t", [0.5, 2.0, 15.9, 16.1, 512.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_full_set(c: int, d: int, t: float, weighted: bool) -> None:
    w = unit_rows(c, d)
    weights = torch.rand(c) if weighted else None
    own = torch.arange(c)
    ours = P.gaussian_potential(w, t=t, weights=weights)
    torchs = reference.gaussian_potential(w, w, t, own, weights)
    heavy = None if weights is None else weights.double()
    truth = reference.gaussian_potential(w.double(), w.double(), t, own, heavy)
    for our, plain, true in zip(ours, torchs, truth, strict=True):
        assert_as_accurate_as(our, plain, true)


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("c", "d"), [(700, 96), (401, 131), (400, 256)])
def test_rounding_keeps_its_promise(
    precision: str, weighted: bool, c: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep._RoundedSweep, "side", 150)
    w = unit_rows(c, d)
    weights = torch.rand(c) if weighted else None
    heavy = None if weights is None else weights.double()
    own = torch.arange(c)
    truth = reference.gaussian_potential(w.double(), w.double(), 2.0, own, heavy)
    full = P.gaussian_potential(w, weights=weights, precision=precision)
    part = P.gaussian_potential(w[:50], w, self_index=own[:50], weights=weights, precision=precision)
    for ours, rows in ((full, own), (part, own[:50])):
        expected = tangent(truth[1][rows], w[rows])
        error = (tangent(ours[1], w[rows]) - expected).norm() / expected.norm()
        assert 1e-7 < error <= ALLOWED[precision]
        torch.testing.assert_close(ours[0].double(), truth[0][rows], rtol=ALLOWED[precision], atol=0)


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("precision", ["high", "medium"])
def test_sharp_potentials_short_rows_and_float64_are_never_rounded(precision: str) -> None:
    w = unit_rows(40, 100)
    sharp = [(w, 2.5)] if precision == "high" else []
    for rows, t in ((w, 4.1), (w, 512.0), (w.double(), 2.0), (unit_rows(40, 95), 2.0), *sharp):
        for ours, plain in zip(
            P.gaussian_potential(rows, t=t, precision=precision), P.gaussian_potential(rows, t=t), strict=True
        ):
            assert ours.dtype == rows.dtype and torch.equal(ours, plain)


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("precision", P.PRECISIONS)
@pytest.mark.parametrize("subset", [None, [4, 0, 11]])
def test_uniformity_loss(precision: str, subset: list[int] | None) -> None:
    rows = None if subset is None else torch.tensor(subset)
    w = (3 * unit_rows(300, 100)).requires_grad_()
    exact = w.detach().double().requires_grad_()
    ours, true = uniformity_loss(w, subset=rows, precision=precision), reference.uniformity_loss(exact, subset=rows)
    allowed = ALLOWED.get(precision, 1e-5)
    assert abs(ours.item() - true.item()) <= allowed
    ours.backward()
    true.backward()
    assert w.grad is not None and exact.grad is not None
    assert (w.grad.double() - exact.grad).norm() <= allowed * exact.grad.norm()


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("precision", P.PRECISIONS)
def test_coincident_points(precision: str) -> None:
    w = torch.nn.functional.normalize(torch.ones(6, 100), dim=1)
    for t in (2.0, 512.0):
        potential, pull = P.gaussian_potential(w, t=t, precision=precision)
        torch.testing.assert_close(potential, torch.full((6,), 5.0), rtol=3e-2, atol=0)
        torch.testing.assert_close(pull, 5 * w, rtol=3e-2, atol=0)


@pytest.mark.parametrize("rows", ["close pairs", "axes"])
def test_integers_are_left_where_their_steps_are_coarse(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "quick_bfloat16", lambda device: True)
    w = unit_rows(800, 128)
    w[:100] = w[100:200] if rows == "close pairs" else torch.eye(128)[:100]
    found = {}
    for integers in (False, True):
        monkeypatch.setattr(sweep, "quick_integers", lambda device, answer=integers: answer)
        found[integers] = P.gaussian_potential(w, precision="medium")
    truth = reference.gaussian_potential(w.double(), w.double(), 2.0, torch.arange(800), None)
    for _, pull in found.values():
        expected = tangent(truth[1], w)
        assert (tangent(pull, w) - expected).norm() <= ALLOWED["medium"] * expected.norm()
    # spiky rows are not turned into integers at all; a close pair costs its block the integers of the second product
    assert torch.equal(found[False][1], found[True][1]) == (rows == "axes")


@pytest.mark.usefixtures("rounded")
@pytest.mark.parametrize("precision", P.PRECISIONS)
def test_five_runs_same_bits_and_no_sight_of_rotations(precision: str) -> None:
    w = unit_rows(420, 100)
    first = P.gaussian_potential(w, precision=precision)
    for _ in range(4):
        again = P.gaussian_potential(w, precision=precision)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    turn = torch.linalg.qr(torch.randn(100, 100, dtype=torch.float64))[0]
    turned = P.gaussian_potential((w.double() @ turn).float(), precision=precision)
    allowed = ALLOWED.get(precision, 1e-5)
    torch.testing.assert_close(turned[0], first[0], rtol=allowed, atol=0)
    back = tangent(turned[1], w.double() @ turn) @ turn.T
    assert (back - tangent(first[1], w)).norm() <= 2 * allowed * tangent(first[1], w).norm()


@pytest.mark.usefixtures("small_blocks")
def test_strided_rows() -> None:
    wide = torch.zeros(30, 8)
    wide[:, ::2] = unit_rows(30, 4)
    ours, packed = P.gaussian_potential(wide[:, ::2]), P.gaussian_potential(wide[:, ::2].contiguous())
    for a, b in zip(ours, packed, strict=True):
        torch.testing.assert_close(a, b)


def test_errors() -> None:
    w = unit_rows(6, 3)
    for arguments, message in (
        ({"precision": "bf16"}, "expected 'highest', 'high' or 'medium'"),
        ({"t": 0.0}, "sharpness"),
        ({"weights": torch.ones(5)}, r"expected \[6\]"),
        ({"others": unit_rows(4, 2)}, "same D"),
        ({"self_index": torch.arange(6)}, "without others"),
        ({"others": w, "self_index": torch.arange(6) + 1}, r"expected 0\.\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            P.gaussian_potential(w, **arguments)
