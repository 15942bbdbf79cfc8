"""Loss and gradient in one pass, against the float64 reference, on a GPU or under Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastproto import reference

from ..kernel_device import DEVICE, REPEATS, needs_cuda, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.ipm_loss import ipm_loss
from fastproto_kernels.lib import error_flags
from fastproto_kernels.lib.tile_sizes import row_block

from ..helpers import assert_as_accurate_as, unit_rows

# (B, C, D): aligned, ragged, prime, the smallest, one class, wide, and beyond what one program holds
SHAPES = [(64, 16, 64), (45, 33, 10), (31, 37, 17), (1, 2, 2), (5, 1, 3), (5, 6, 1000), (3, 4, 4100)]


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


def batch(b: int, c: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = (3 * torch.randn(b, dim)).to(DEVICE, dtype)
    labels = torch.randint(0, c, (b,), device=DEVICE)
    return x, labels, unit_rows(c, dim).to(DEVICE), torch.randperm(c, device=DEVICE)


def new_flag() -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=DEVICE)


def check(x: Tensor, labels: Tensor, w: Tensor, assignment: Tensor, power: float = 2.0) -> None:
    flag = new_flag()
    loss, gradient = ipm_loss(x, labels, w, assignment, power=power, flag=flag)
    assert loss.dtype == torch.float32 and gradient.dtype == x.dtype
    assert int(flag) == 0
    exact = (x.double(), labels, w.double(), assignment)
    single = (x.float(), labels, w, assignment)
    truth, torchs = reference.ipm_loss(*exact, power=power), reference.ipm_loss(*single, power=power)
    assert_as_accurate_as(loss, torchs, truth)
    truth, torchs = reference.ipm_gradient(*exact, power), reference.ipm_gradient(*single, power)
    assert_as_accurate_as(gradient, torchs.to(x.dtype), truth)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_accurate_as_torch(shape: tuple[int, int, int]) -> None:
    check(*batch(*shape))


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(45, 33, 10), (1, 2, 2), (3, 4, 4100)], ids=str)
def test_powers(shape: tuple[int, int, int], power: float) -> None:
    check(*batch(*shape), power)


def test_power_2_is_the_default() -> None:
    given = batch(20, 7, 24)
    assert all(map(torch.equal, ipm_loss(*given), ipm_loss(*given, power=2)))


@pytest.mark.parametrize("power", [0.5, 0.7, 1.0, 3.0])
def test_near_and_at_the_target_and_without_direction(power: float) -> None:
    """1 - cos from differences: its relative error is that of the rounding over the angle, not over its square."""
    _, labels, w, assignment = batch(40, 33, 10)
    own = w[assignment[labels]]
    x = own + 1e-3 * torch.randn(40, 10, device=DEVICE)
    x[:8], x[8:10] = 3 * own[:8], 0
    loss, gradient = ipm_loss(x, labels, w, assignment, power=power)
    assert not bool(loss[:8].any()) and not bool(gradient[:10].any())
    torch.testing.assert_close(loss[8:10], torch.full((2,), 1 / power, device=DEVICE))
    exact = (x[10:].double(), labels[10:], w.double(), assignment)
    torch.testing.assert_close(loss[10:].double(), reference.ipm_loss(*exact, power=power), rtol=1e-3, atol=0)
    slope = reference.ipm_gradient(*exact, power)
    assert float(((gradient[10:] - slope).norm(dim=1) / slope.norm(dim=1)).max()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
@pytest.mark.parametrize("shape", [(33, 5, 64), (7, 9, 100)], ids=str)
def test_half_precision_features(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(*batch(*shape, dtype))


def test_a_flag_and_a_counter_do_not_change_the_numbers() -> None:
    given = batch(20, 7, 24)
    full = ipm_loss(*given, flag=new_flag(), skipped=torch.tensor(0, device=DEVICE))
    assert all(map(torch.equal, full, ipm_loss(*given)))


def test_rows_that_are_not_contiguous() -> None:
    wide = torch.randn(40, 70, device=DEVICE)
    _, labels, w, assignment = batch(20, 7, 24)
    spread = unit_rows(24, 7).to(DEVICE)
    spread = (spread / spread.norm(dim=0)).T  # columns are contiguous, rows are not
    for x in (wide[::2, 3:27], wide.T[5:25, 1:25], wide[:20, ::2][:, :24], wide[:1, :24].expand(20, 24)):
        check(x, labels, w, assignment)
        check(x, labels, spread, assignment)
        check(x, labels, torch.cat([w, w], 1)[:, :24], assignment)


@pytest.mark.parametrize("dim", [2, 24, 4100])
def test_a_zero_row_has_loss_one_half_and_no_gradient(dim: int) -> None:
    x, labels, w, assignment = batch(4, 3, dim)
    x[1], x[2] = 0, 1e-14
    flag = new_flag()
    loss, gradient = ipm_loss(x, labels, w, assignment, flag=flag)
    assert loss[1:3].tolist() == [0.5, 0.5] and not bool(gradient[1:3].any())
    assert bool(gradient[0].any()) and bool(gradient[3].any())
    assert int(flag) == 0


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, of inf times zero
@pytest.mark.parametrize("dim", [2, 24, 4100])
def test_bad_rows_are_left_out_and_flagged(dim: int) -> None:
    x, labels, w, assignment = batch(12 if dim < 4096 else 5, 5, dim)
    clean = ipm_loss(x, labels, w, assignment)
    spoils: list[tuple[Callable[[Tensor, Tensor, Tensor], object], int]] = [
        (lambda x, y, a: y.__setitem__(3, 5), error_flags.BAD_LABEL),
        (lambda x, y, a: y.__setitem__(3, -1), error_flags.BAD_LABEL),
        (lambda x, y, a: y.__setitem__(3, 2**40), error_flags.BAD_LABEL),
        (lambda x, y, a: x[3].__setitem__(dim - 1, torch.nan), error_flags.NOT_FINITE),
        (lambda x, y, a: x[3].__setitem__(0, -torch.inf), error_flags.NOT_FINITE),
        (lambda x, y, a: a.__setitem__(y[3], 5), error_flags.BAD_ASSIGNMENT),
        (lambda x, y, a: a.__setitem__(y[3], -7), error_flags.BAD_ASSIGNMENT),
    ]
    for spoil, bit in spoils:
        bad_x, bad_labels, bad_assignment = x.clone(), labels.clone(), assignment.clone()
        bad_labels[3] = 4
        spoil(bad_x, bad_labels, bad_assignment)
        flag = new_flag()
        spoiled = ipm_loss(bad_x, bad_labels, w, bad_assignment, flag=flag)
        assert int(flag) == bit
        untouched = (bad_labels == labels) & (bad_assignment[labels] == assignment[labels])
        untouched[3] = False
        for bad, good in zip(spoiled, clean, strict=True):
            assert not bool(bad[3].any())
            assert torch.equal(bad[untouched], good[untouched])


def test_the_flag_collects_bits() -> None:
    x, labels, w, assignment = batch(6, 3, 8)
    labels[0], x[5, 2], x[2, 0] = 9, torch.nan, torch.inf
    flag = torch.tensor([8], dtype=torch.int32, device=DEVICE)
    skipped = torch.tensor(40, device=DEVICE)
    ipm_loss(x, labels, w, assignment, flag=flag, skipped=skipped)
    assert int(flag) == 8 | error_flags.BAD_LABEL | error_flags.NOT_FINITE
    assert int(skipped) == 42


def test_an_empty_batch() -> None:
    x, labels, w, assignment = batch(0, 3, 8)
    loss, gradient = ipm_loss(x, labels, w, assignment)
    assert loss.shape == (0,) and gradient.shape == (0, 8)


def test_runs_have_the_same_bits() -> None:
    given = batch(33, 7, 20)
    first = ipm_loss(*given)
    for _ in range(REPEATS):
        assert all(map(torch.equal, first, ipm_loss(*given)))


@needs_cuda
def test_inside_a_cuda_graph() -> None:
    given = batch(300, 64, 128, torch.bfloat16)
    eager = ipm_loss(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ipm_loss(*given)
    graph.replay()
    assert torch.equal(eager[0], captured[0]) and torch.equal(eager[1], captured[1])


@pytest.mark.parametrize("per_thread", [8, 16])
def test_a_block_covers_the_row(per_thread: int) -> None:
    for dim in [2, 3, 16, 17, 64, 100, 512, 513, 2048, 4096, 4097, 10_000]:
        block = row_block(dim, per_thread)
        assert block.width * block.rounds >= dim > block.width * (block.rounds - 1)
        assert block.num_warps in (1, 2, 4, 8)
        assert block.rows * block.width == 32 * (16 if block.width == 4096 else per_thread) * block.num_warps
