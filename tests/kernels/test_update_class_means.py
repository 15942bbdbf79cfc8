"""Class means, alone and with the loss, against the float64 loop: on a GPU or under Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastproto import reference

from ..kernel_device import DEVICE, REPEATS, needs_cuda, poison  # first: it skips the file where the kernels cannot run

# isort: split
from fastproto_kernels.head_step import head_step_
from fastproto_kernels.ipm_loss import ipm_loss
from fastproto_kernels.lib import error_flags
from fastproto_kernels.lib.class_mean_update import walk_steps
from fastproto_kernels.update_class_means import update_class_means_

from ..helpers import assert_as_accurate_as, unit_rows

# (B, C, D): aligned, ragged, prime, the smallest, one class, wide, and beyond what one program holds
SHAPES = [(64, 16, 64), (45, 33, 10), (31, 37, 17), (1, 2, 2), (25, 1, 3), (9, 4, 1000), (5, 2, 4100)]


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch)


STEPS = 8  # of the longest walks; batches as small as these would have shorter ones


def batch(b: int, c: int, dim: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    means = torch.randn(c, dim).to(DEVICE)
    return means, (3 * torch.randn(b, dim)).to(DEVICE, dtype), torch.randint(0, c, (b,), device=DEVICE)


def new_flag() -> Tensor:
    return torch.zeros(1, dtype=torch.int32, device=DEVICE)


def check(means: Tensor, x: Tensor, labels: Tensor, momentum: float = 0.9, steps: int | None = None) -> None:
    """Both launchers; on contiguous rows their means have the same bits."""
    truth = reference.update_class_means(means.double(), x.double(), labels, momentum)
    torchs = reference.update_class_means(means, x.float(), labels, momentum)
    ours, flag = means.clone(), new_flag()
    update_class_means_(ours, x, labels, momentum, flag=flag, steps=steps)
    assert_as_accurate_as(ours, torchs, truth, crumb=2e-7)
    present = torch.zeros(len(means), dtype=torch.bool, device=DEVICE)
    present[labels] = True
    assert torch.equal(ours[~present], means[~present])
    w, assignment = unit_rows(*means.shape).to(DEVICE), torch.randperm(len(means), device=DEVICE)
    together = means.clone()
    loss, gradient = head_step_(together, x, labels, w, assignment, momentum=momentum, flag=flag, steps=steps)
    if x.is_contiguous():
        assert torch.equal(together, ours)
    else:  # a compiler may add the squares of a row in another order in each of the two
        assert_as_accurate_as(together, torchs, truth, crumb=2e-7)
    apart = ipm_loss(x, labels, w, assignment)
    torch.testing.assert_close(loss, apart[0], rtol=1e-5, atol=1e-6)
    assert gradient.dtype == x.dtype
    torch.testing.assert_close(gradient, apart[1], rtol=1e-3, atol=1e-6 if x.dtype == torch.float32 else 1e-4)
    assert int(flag) == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_recurrence_in_batch_order(shape: tuple[int, int, int]) -> None:
    check(*batch(*shape))


@pytest.mark.parametrize(
    ("shape", "power"), [((33, 9, 10), 0.5), ((33, 9, 10), 0.7), ((33, 9, 10), 1.0), ((3, 2, 4100), 0.5)], ids=str
)
def test_the_loss_of_the_step_has_any_power(shape: tuple[int, int, int], power: float) -> None:
    means, x, labels = batch(*shape)
    w, assignment = unit_rows(*means.shape).to(DEVICE), torch.randperm(len(means), device=DEVICE)
    alone, together = means.clone(), means.clone()
    loss, gradient = head_step_(together, x, labels, w, assignment, momentum=0.9, power=power)
    update_class_means_(alone, x, labels, 0.9)
    assert torch.equal(together, alone)
    apart = ipm_loss(x, labels, w, assignment, power=power)
    torch.testing.assert_close(loss, apart[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, apart[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=needs_cuda)])
@pytest.mark.parametrize("shape", [(40, 5, 64), (17, 9, 100)], ids=str)
def test_half_precision_features(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    check(*batch(*shape, dtype))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("b", [STEPS, STEPS + 1, 4 * STEPS, 12 * STEPS + 3])
def test_one_class_across_many_walks(b: int, momentum: float) -> None:
    check(*batch(b, 1, 5), momentum, STEPS)


@pytest.mark.parametrize(("count", "momentum"), [(32 * STEPS + 1, 0.5), (34 * STEPS + 5, 0.5), (34 * STEPS + 5, 0.99)])
def test_parts_beyond_one_block_of_walks_and_weights_beyond_float32(count: int, momentum: float) -> None:
    """At α = 0.5 all but the last 150 samples have no weight; at α = 0.99 all have."""
    means, x, labels = batch(count, 3, 4)
    labels[labels == 2] = 1
    labels[5] = 2
    check(means, x, labels, momentum, STEPS)


@pytest.mark.parametrize("seed", range(8))
def test_random_multisets_of_labels(seed: int) -> None:
    """Every border: segments that begin, end and go on at every position of a walk."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 3 * STEPS, (6,), generator=generator)
    labels = torch.repeat_interleave(torch.randperm(9, generator=generator)[:6], lengths)
    labels = labels[torch.randperm(len(labels), generator=generator)].to(DEVICE)
    means, x, _ = batch(len(labels), 9, 3)
    check(means, x, labels, 0.8, STEPS)


def test_rows_that_are_not_contiguous() -> None:
    wide = torch.randn(80, 80, device=DEVICE)
    means, _, labels = batch(40, 7, 24)
    for x in (wide[::2, 3:27], wide.T[5:45, 1:25], wide[:40, ::2][:, :24], wide[:1, :24].expand(40, 24)):
        check(means, x, labels)


def test_a_zero_row_is_a_step_towards_zero() -> None:
    means, x, labels = batch(30, 3, 16)
    x[4], x[9], x[20] = 0, 1e-14, 0
    check(means, x, labels)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy, of inf times zero
@pytest.mark.parametrize("dim", [3, 24, 4100])
def test_bad_rows_are_left_out_and_flagged(dim: int) -> None:
    b = 40 if dim < 4096 else 13
    means, x, labels = batch(b, 2, dim)
    x[1, dim - 1], x[2, 0], x[7] = torch.nan, torch.inf, -torch.inf
    labels[5], labels[11], labels[12] = -3, 2, 2**35
    good = torch.ones(b, dtype=torch.bool, device=DEVICE)
    good[torch.tensor([1, 2, 7, 5, 11, 12])] = False
    truth = reference.update_class_means(means.double(), x[good].double(), labels[good], 0.9)
    torchs = reference.update_class_means(means, x[good], labels[good], 0.9)
    ours, together, flag = means.clone(), means.clone(), new_flag()
    update_class_means_(ours, x, labels, 0.9, flag=flag, steps=STEPS)
    assert int(flag) == error_flags.BAD_LABEL | error_flags.NOT_FINITE
    assert_as_accurate_as(ours, torchs, truth, crumb=2e-7)
    w, assignment, flag = unit_rows(2, dim).to(DEVICE), torch.tensor([1, 0], device=DEVICE), new_flag()
    skipped = torch.tensor(2**40, device=DEVICE)
    loss, gradient = head_step_(
        together, x, labels, w, assignment, momentum=0.9, flag=flag, skipped=skipped, steps=STEPS
    )
    assert torch.equal(together, ours)
    assert int(flag) == error_flags.BAD_LABEL | error_flags.NOT_FINITE
    assert int(skipped) == 2**40 + 3, "rows with NaN or inf, each once"
    assert not bool(loss[~good].any()) and not bool(gradient[~good].any())
    torch.testing.assert_close(loss[good], ipm_loss(x, labels, w, assignment)[0][good], rtol=1e-5, atol=1e-6)


def test_a_batch_of_bad_rows_changes_nothing() -> None:
    means, x, labels = batch(20, 3, 8)
    for spoiled_x, spoiled_labels in ((x * torch.nan, labels), (x, labels + 3)):
        ours = means.clone()
        update_class_means_(ours, spoiled_x, spoiled_labels, 0.9)
        assert torch.equal(ours, means)


def test_a_bad_assignment_costs_the_loss_but_not_the_means() -> None:
    means, x, labels = batch(20, 3, 8)
    w, assignment, flag = unit_rows(3, 8).to(DEVICE), torch.tensor([0, 3, 1], device=DEVICE), new_flag()
    ours, together = means.clone(), means.clone()
    update_class_means_(ours, x, labels, 0.9)
    loss, gradient = head_step_(together, x, labels, w, assignment, momentum=0.9, flag=flag)
    assert torch.equal(ours, together) and int(flag) == error_flags.BAD_ASSIGNMENT
    assert not bool(loss[labels == 1].any()) and not bool(gradient[labels == 1].any())
    assert bool((loss[labels != 1] > 0).all())


def test_walks_grow_with_the_batch() -> None:
    assert [walk_steps(b) for b in (1, 1024, 4096, 8192, 10**6)] == [2, 2, 4, 8, 8]


def test_an_empty_batch() -> None:
    means, x, labels = batch(0, 3, 8)
    ours = means.clone()
    update_class_means_(ours, x, labels, 0.9)
    w = unit_rows(3, 8).to(DEVICE)
    loss, gradient = head_step_(ours, x, labels, w, torch.arange(3, device=DEVICE), momentum=0.9)
    assert torch.equal(ours, means) and loss.shape == (0,) and gradient.shape == (0, 8)


def test_runs_have_the_same_bits() -> None:
    means, x, labels = batch(40, 3, 20)
    w, assignment = unit_rows(3, 20).to(DEVICE), torch.randperm(3, device=DEVICE)

    def run() -> tuple[Tensor, ...]:
        ours = means.clone()
        return ours, *head_step_(ours, x, labels, w, assignment, momentum=0.9)

    first = run()
    for _ in range(REPEATS):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@needs_cuda
@pytest.mark.parametrize("shape", [(8192, 100_000, 512), (20_000, 10, 128), (8192, 2, 4096)], ids=str)
def test_large_batches(shape: tuple[int, int, int]) -> None:
    means, x, labels = batch(*shape, torch.bfloat16)
    labels[::2] = labels[0]
    w, assignment = unit_rows(*means.shape).to(DEVICE), torch.randperm(len(means), device=DEVICE)
    ours = means.clone()
    loss, gradient = head_step_(ours, x, labels, w, assignment, momentum=0.99)
    apart = ipm_loss(x, labels, w, assignment)
    torch.testing.assert_close(loss, apart[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, apart[1], rtol=2e-2, atol=1e-5)
    some = labels[:3].tolist()
    for label in some:
        chosen = labels == label
        truth = reference.update_class_means(means[label, None].double(), x[chosen].double(), 0 * labels[chosen], 0.99)
        torch.testing.assert_close(ours[label, None].double(), truth, rtol=1e-4, atol=1e-5)


@needs_cuda
def test_inside_a_cuda_graph() -> None:
    means, x, labels = batch(300, 64, 128, torch.bfloat16)
    w, assignment = unit_rows(64, 128).to(DEVICE), torch.randperm(64, device=DEVICE)
    eager_means, graph_means = means.clone(), means.clone()
    eager = head_step_(eager_means, x, labels, w, assignment, momentum=0.9)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = head_step_(graph_means, x, labels, w, assignment, momentum=0.9)
    graph_means.copy_(means)
    graph.replay()
    assert torch.equal(eager_means, graph_means)
    assert all(torch.equal(a, b) for a, b in zip(eager, captured, strict=True))
