"""Centred factors and what rounding does to them, against float64 in PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ..kernel_device import DEVICE, REPEATS, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.centre_factors import Centred, centre_factors

FLOAT64 = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def check(left: Tensor, right: Tensor) -> Centred:
    norms = left.double().norm(dim=1)
    found = centre_factors(left, norms, right)
    points, others = found.points.double(), found.others.double()
    facts = found.facts_on_host()
    assert all(map(torch.equal, facts, (part.cpu() for part in found.facts)))
    unit, offset, magnitude, squares = (float(fact) for fact in facts[:4])
    most, error, row_shift, column_shift = facts.gram_norms.tolist(), *found.facts[5:]
    x, y = left.double() / norms[:, None], right.double()
    means = x.sum(0) / max(len(x), 1), y.mean(0)
    assert offset == pytest.approx(float(means[0] @ means[1]), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(row_shift, x @ means[1] - offset, **FLOAT64)
    torch.testing.assert_close(column_shift, y @ means[0], **FLOAT64)
    units = 1.0
    for rows, true in ((points, x - means[0]), (others, y - means[1])):
        norm = true.norm(dim=1)
        longest = float(norm.max()) if bool((norm > 0).any()) else 1.0
        assert rows.norm(dim=1).le(1 + 1e-6).all()
        torch.testing.assert_close(rows, true / longest, rtol=0, atol=1e-7)
        units *= longest
    assert unit == pytest.approx(units, rel=1e-12)
    assert bool((x @ y.T).abs().le(magnitude).all())
    grams = points.T @ points, others.T @ others
    assert squares == pytest.approx(float((grams[0] * grams[1]).sum()), rel=2e-2, abs=1e-12)
    assert most == pytest.approx([float(gram.norm()) for gram in grams], rel=2e-2)
    # three products of float16 halves, as the kernels form them
    halves = [(rows.half(), (rows.float() - rows.half().float()).half()) for rows in (points, others)]
    (p, p_low), (w, w_low) = [[half.double() for half in pair] for pair in halves]
    scores = unit * (p @ w.T + p_low @ w.T + p @ w_low.T) + row_shift[:, None] + column_shift
    wrong = (scores - x @ y.T).abs()
    assert error.shape == (len(left),) and bool((wrong <= error[:, None] + 1e-15 * magnitude).all())
    # not far from it either: four times the rounding of float32 sums
    assert bool((error <= 6 * (left.shape[1] + 1) * 2.0**-23 * unit).all())
    return found


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 40, 3), (33, 31, 16), (100, 70, 20), (20, 17, 300)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_float64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    m, c, dim = shape
    check(numbers(m, dim, dtype=dtype) + 1, numbers(c, dim, seed=1, dtype=dtype))


def test_rows_that_are_nearly_or_quite_the_same() -> None:
    one, right = torch.ones(30, 12, dtype=torch.float64, device=DEVICE), numbers(25, 12, dtype=torch.float64)
    check(one + 1e-6 * numbers(30, 12, dtype=torch.float64), right)
    found = centre_factors(one, one.norm(dim=1), right)
    assert 0 <= float(found.facts.unit) < 1e-14 or not bool(found.points.any())
    assert bool(found.points.isfinite().all() and found.packed.isfinite().all())


def test_zeros() -> None:
    found = check(numbers(10, 4), torch.zeros(10, 4, device=DEVICE))
    assert not bool(found.others.any()) and float(found.facts.unit) > 0


def test_no_points() -> None:
    found = check(numbers(0, 5), numbers(9, 5))
    assert found.points.shape == (0, 5) and found.others.shape == (9, 5)


def test_many_parts_and_rows_with_strides() -> None:
    check(numbers(200, 40)[:, ::2], numbers(20, 150).T)


def test_the_same_bits_again() -> None:
    left, right = numbers(50, 33), numbers(40, 33, seed=1)
    norms = left.double().norm(dim=1)
    first = centre_factors(left, norms, right)
    for _ in range(REPEATS):
        assert all(map(torch.equal, first, centre_factors(left, norms, right)))
