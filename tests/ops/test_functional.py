"""The public functions against the float64 reference, and their errors."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.autograd import gradcheck

from fastproto import functional as F
from fastproto import reference
from fastproto.backend import use_backend
from fastproto.ops import nearest_prototypes as nearest

from ..helpers import SHAPES, assert_as_accurate_as, unit_rows


def batch(b: int, c: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.randn(b, d) * 3, torch.randint(0, c, (b,)), unit_rows(c, d), torch.randperm(c)


# --- L_uni


@pytest.mark.parametrize("form", ["pairs", "eq5"])
@pytest.mark.parametrize("subset", [None, [3], [0, 5, 2], list(range(11))])
def test_uniformity_loss(form: str, subset: list[int] | None) -> None:
    rows = None if subset is None else torch.tensor(subset)
    w = torch.randn(11, 4, dtype=torch.float64, requires_grad=True)
    ours = F.uniformity_loss(w, t=3.0, subset=rows, form=form)
    true = reference.uniformity_loss(w, 3.0, rows, form)
    torch.testing.assert_close(ours, true)
    torch.testing.assert_close(*(torch.autograd.grad(loss, w)[0] for loss in (ours, true)))
    assert gradcheck(lambda w: F.uniformity_loss(w, t=3.0, subset=rows, form=form), w)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(2, 9), st.integers(0, 2**31))
def test_uniformity_loss_does_not_see_rotations(c: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(c, d, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    torch.testing.assert_close(F.uniformity_loss(w @ turn), F.uniformity_loss(w))


@pytest.mark.parametrize("t", [30.0, 60.0, 128.0])
def test_uniformity_loss_of_sharp_potentials(t: float) -> None:
    w = torch.eye(4, requires_grad=True)
    loss = F.uniformity_loss(w, t=t)
    loss.backward()
    assert loss.item() == pytest.approx(-2 * t)  # all pairs at distance² 2
    assert w.grad is not None and torch.isfinite(w.grad).all()
    with pytest.raises(ValueError, match="lower t"):
        F.uniformity_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), t=300.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"points": 2 * unit_rows(3, 4)}, ValueError, "expected unit rows"),
        ({"points": torch.full((3, 4), float("nan"))}, ValueError, "NaN"),
        ({"points": unit_rows(3, 4).half()}, TypeError, "float32 beside torch.float16"),
        ({"points": unit_rows(3, 4).to(torch.complex64)}, TypeError, "complex64"),
        ({"others": unit_rows(5, 4).double()}, TypeError, "both float32 or both float64"),
        ({"others": unit_rows(5, 3)}, ValueError, "same D"),
        ({"precision": "low"}, ValueError, "'low'"),
        ({"t": -1.0}, ValueError, "sharpness"),
        ({"weights": torch.ones(3)}, ValueError, r"expected \[5\]"),
        ({"self_index": torch.tensor([0, 1, 5])}, ValueError, "0..4"),
    ],
)
def test_gaussian_potential_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.gaussian_potential(**({"points": unit_rows(3, 4), "others": unit_rows(5, 4)} | arguments))


def test_coincident_prototypes_have_a_finite_gradient() -> None:
    w = torch.ones(4, 3, requires_grad=True)
    loss = F.uniformity_loss(w, t=50.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-4)
    assert w.grad is not None and torch.isfinite(w.grad).all()


# --- Eq. 6


@pytest.mark.parametrize(("b", "c", "d"), [*SHAPES, (0, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", ["eq6", "official"])
def test_ipm_loss(b: int, c: int, d: int, dtype: torch.dtype, loss: str) -> None:
    features, labels, prototypes, assignment = batch(b, c, d)
    features = features.to(dtype).requires_grad_()
    weight, cotangent = torch.rand(b), torch.randn(b)
    scale = 2.0 if loss == "official" else 1.0

    ours = F.ipm_loss(features, labels, prototypes, assignment, weight=weight, reduction="none", loss=loss)
    (our_gradient,) = torch.autograd.grad(ours, features, cotangent)
    assert ours.dtype == torch.float32 and our_gradient.dtype == dtype

    def plain(x: Tensor, w: Tensor, omega: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        value = scale * reference.ipm_loss(x, labels, w, assignment, omega)
        return value.detach(), torch.autograd.grad(value, x, v)[0]

    torchs = plain(features.float(), prototypes, weight, cotangent)
    truth = plain(features.double(), prototypes.double(), weight.double(), cotangent.double())
    assert_as_accurate_as(ours.detach(), torchs[0], truth[0])
    assert_as_accurate_as(our_gradient, torchs[1].to(dtype), truth[1], crumb=2 * torch.finfo(dtype).eps)


def test_ipm_loss_gradcheck_and_reductions() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    x = features.double().requires_grad_()
    weight = torch.rand(6, dtype=torch.float64)
    for reduction in ("mean", "sum", "none"):
        assert gradcheck(
            lambda x, r=reduction: F.ipm_loss(x, labels, prototypes, assignment, weight=weight, reduction=r), x
        )
    per_sample = F.ipm_loss(x, labels, prototypes, assignment, weight=weight, reduction="none")
    torch.testing.assert_close(F.ipm_loss(x, labels, prototypes, assignment, weight=weight), per_sample.sum() / 6)


def test_ipm_loss_of_rows_without_direction() -> None:
    _, labels, prototypes, assignment = batch(3, 4, 5)
    x = torch.tensor([[0.0] * 5, [1e-13] * 5, [1.0] * 5], requires_grad=True)
    loss = F.ipm_loss(x, labels, prototypes, assignment, reduction="none")
    loss.sum().backward()
    assert loss[:2].tolist() == [0.5, 0.5]
    assert x.grad is not None and x.grad[:2].eq(0).all() and x.grad[2].abs().sum() > 0


def test_ipm_loss_of_strided_rows() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    wide = torch.randn(6, 8)
    wide[:, ::2] = features
    ours = F.ipm_loss(wide[:, ::2], labels, prototypes, assignment)
    torch.testing.assert_close(ours, F.ipm_loss(features, labels, prototypes, assignment), rtol=0, atol=0)


def test_double_backward_is_refused() -> None:
    features, labels, prototypes, assignment = batch(4, 5, 3)
    x = features.requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(F.ipm_loss(x, labels, prototypes, assignment), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(F.uniformity_loss(x), x, create_graph=True)


def test_registered_operators() -> None:
    features, labels, prototypes, assignment = batch(6, 9, 4)
    for x, weight, skip in ((features, None, False), (features.double(), torch.rand(6), True)):
        flag, means = torch.zeros(1, dtype=torch.int32), torch.zeros(9, 4)
        arguments = (x, labels, prototypes, assignment, weight, 0.5, skip, flag, torch.tensor(0) if skip else None)
        torch.library.opcheck(torch.ops.fastproto.ipm_loss.default, arguments)
        torch.library.opcheck(torch.ops.fastproto.update_class_means_.default, (means, x, labels, 0.9, skip, flag))
        torch.library.opcheck(torch.ops.fastproto.head_step_.default, (*arguments, means, 0.9))

    w, ops = unit_rows(9, 4), torch.ops.fastproto
    torch.library.opcheck(ops.gaussian_potential.default, (w, None, 2.0, None, None, "highest"))
    torch.library.opcheck(ops.gaussian_potential.default, (w[:2], w, 2.0, torch.tensor([1, -1]), torch.rand(9), "high"))
    for rows, with_gradient in ((None, True), (torch.tensor([5, 2]), True), (None, False)):
        for matrix in (w, w.double(), w.T.contiguous().T):
            torch.library.opcheck(ops.uniformity_loss.default, (matrix, 30.0, rows, "eq5", "highest", with_gradient))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("subset", [None, [2, 0, 7]])
def test_compiled_uniformity_loss_equals_eager(subset: list[int] | None) -> None:
    rows = None if subset is None else torch.tensor(subset)

    def loss(w: Tensor, rows: Tensor | None) -> Tensor:
        return 3 * F.uniformity_loss(2 * w, t=3.0, subset=rows, form="eq5")

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    start = unit_rows(9, 4).mul_(torch.arange(1, 10)[:, None])
    for function in (loss, compiled):
        w = start.clone().requires_grad_()
        value = function(w, rows)
        results.append((value.detach(), *torch.autograd.grad(value, w)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(w, rows)
        with pytest.raises(ValueError, match="row 3 is zero"):
            compiled(w.detach().index_fill(0, torch.tensor([3]), 0.0).requires_grad_(), rows)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_gaussian_potential_equals_eager() -> None:
    w = unit_rows(9, 4)
    compiled = torch.compile(lambda w: F.gaussian_potential(w, t=3.0), fullgraph=True, backend="aot_eager")
    assert all(torch.equal(a, b) for a, b in zip(compiled(w), F.gaussian_potential(w, t=3.0), strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_equals_eager() -> None:
    features, labels, prototypes, assignment = batch(16, 9, 4)

    def step(x: Tensor, means: Tensor) -> Tensor:
        loss = F.ipm_loss(x * 2, labels, prototypes, assignment)
        F.update_class_means_(means, x, labels, 0.9)
        return loss

    results: list[Any] = []
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        x, means = features.clone().requires_grad_(), torch.zeros(9, 4)
        loss = function(x, means)
        loss.backward()
        results.append((loss.detach(), x.grad, means))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


# --- class means


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(2, 12),
    st.integers(2, 9),
    st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    st.integers(0, 999),
)
def test_class_means_equal_the_loop(b: int, c: int, d: int, momentum: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means, features = torch.randn(c, d, generator=generator), torch.randn(b, d, generator=generator)
    labels = torch.randint(0, c, (b,), generator=generator)
    labels[: b // 2] = 0  # a long tail: one class in half the batch
    ours = F.update_class_means(means, features, labels, momentum)
    loop = reference.update_class_means(means, features, labels, momentum)
    truth = reference.update_class_means(means.double(), features.double(), labels, momentum)
    assert_as_accurate_as(ours, loop, truth, crumb=1e-7)


def test_class_means_in_place_touch_only_the_classes_present() -> None:
    means = torch.randn(100, 8)
    before = means.clone()
    F.update_class_means_(means, torch.randn(5, 8), torch.tensor([3, 3, 90, 3, 7]), 0.9)
    touched = [3, 7, 90]
    kept = [i for i in range(100) if i not in touched]
    assert torch.equal(means[kept], before[kept])
    assert (means[touched] != before[touched]).any(1).all()


def test_five_runs_same_bits() -> None:
    features, labels, prototypes, assignment = batch(200, 31, 17)
    means = torch.randn(31, 17)

    def everything() -> list[Tensor]:
        x = features.clone().requires_grad_()
        w = torch.randn(31, 17, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = F.ipm_loss(x, labels, prototypes, assignment) + F.uniformity_loss(w)
        loss.backward()
        assert x.grad is not None and w.grad is not None
        return [loss.detach(), x.grad, w.grad, F.update_class_means(means, features, labels, 0.9)]

    first = everything()
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(), strict=True))


# --- nearest prototypes


@pytest.mark.parametrize(("b", "c", "d"), [*SHAPES, (0, 4, 3)])
@pytest.mark.parametrize("k", [1, 2, 20])
def test_nearest_prototypes(b: int, c: int, d: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 7)
    k = min(k, c)
    features, prototypes = torch.randn(b, d, dtype=torch.float64), unit_rows(c, d, torch.float64)
    cosines, indices = F.nearest_prototypes(features, prototypes, k)
    expected = reference.normalise(features) @ prototypes.T
    value, index = expected.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(cosines, value[:, :k])
    assert torch.equal(indices, index[:, :k])


@pytest.mark.parametrize(("b", "c", "k"), [(13, 333, 5), (1, 7, 7), (0, 4, 2), (9, 300, 64), (5, 200, 90)])
def test_nearest_prototypes_of_both_backends_are_the_same(
    b: int, c: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "SCAN_ROWS", 4)
    monkeypatch.setattr(nearest, "BLOCK", 150)
    # unit rows whose cosines are exact, and mostly equal
    features, prototypes = (torch.randint(0, 2, (rows, 4)) - 0.5 for rows in (b, c))
    found = []
    for backend in ("numba", "torch") if k <= nearest.SCAN_MAX else ("auto", "torch"):
        with use_backend(backend):
            found.append(F.nearest_prototypes(features, prototypes, k))
    (values, indices), (expected, order) = found
    assert torch.equal(values, expected) and torch.equal(indices, order)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("k", [1, 3, 17])
def test_equal_cosines_come_in_order_of_index(k: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 4)
    prototypes = torch.eye(3).repeat(6, 1)  # rows 0, 3, 6, ... are the same
    with use_backend(backend):
        _, indices = F.nearest_prototypes(torch.tensor([[1.0, 0.0, 0.0]]), prototypes, k)
    order = [*range(0, 18, 3), *(i for i in range(18) if i % 3)]
    assert indices[0].tolist() == order[:k]


# --- bad input: each error names what was given


def good() -> dict[str, Any]:
    features, labels, prototypes, assignment = batch(4, 6, 3)
    return {"features": features, "labels": labels, "prototypes": prototypes, "assignment": assignment}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.tensor([0, 1, 2, 6])}, ValueError, "labels run from 0 to 6; expected 0..5"),
        ({"labels": torch.tensor([0, -1, 2, 3])}, ValueError, "labels run from -1 to 3"),
        ({"labels": torch.tensor([0.0, 1, 2, 3])}, TypeError, "torch.float32; expected an int64"),
        ({"labels": torch.tensor([0, 1, 2])}, ValueError, r"shape \[3\]; expected \[4\]"),
        ({"features": torch.randn(4, 5)}, ValueError, "expected the same D"),
        ({"features": torch.randn(4)}, ValueError, "at least 0 rows"),
        ({"features": torch.zeros(4, 3, dtype=torch.int64)}, TypeError, "convert it"),
        ({"features": torch.tensor([[1.0, 2, 3]] * 2 + [[1, float("nan"), 3]] * 2)}, ValueError, "first in row 2"),
        ({"features": torch.tensor([[1.0, 2, 3]] * 3 + [[1, float("inf"), 3]])}, ValueError, "first in row 3"),
        ({"prototypes": unit_rows(6, 3).requires_grad_()}, ValueError, "detach"),
        ({"assignment": torch.arange(5)}, ValueError, r"expected \[6\]"),
        ({"assignment": torch.full((6,), 99)}, ValueError, "expected 0..5"),
        ({"assignment": torch.full((6,), -1)}, ValueError, "expected 0..5"),
        ({"prototypes": 3 * unit_rows(6, 3)}, ValueError, "expected unit rows"),
        ({"prototypes": torch.full((6, 3), float("nan"))}, ValueError, "NaN"),
        ({"weight": torch.tensor([1.0, float("nan"), 1, 1])}, ValueError, "weight holds NaN"),
        ({"weight": torch.ones(3)}, ValueError, r"shape \[3\]"),
        ({"reduction": "average"}, ValueError, "'average'"),
        ({"loss": "eq7"}, ValueError, "'eq7'"),
    ],
)
def test_ipm_loss_errors(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        F.ipm_loss(**(good() | change))


def test_class_means_errors_leave_the_means_alone() -> None:
    means = torch.randn(6, 3)
    before = means.clone()
    features, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 3])
    for bad, error in (
        ({"labels": torch.tensor([0, 1, 2, 9])}, ValueError),
        ({"features": torch.full((4, 3), float("nan"))}, ValueError),
        ({"momentum": 1.0}, ValueError),
        ({"momentum": -0.1}, ValueError),
        ({"features": torch.randn(4, 2)}, ValueError),
        ({"means": means.half()}, TypeError),
    ):
        arguments: dict[str, Any] = {"means": means, "features": features, "labels": labels, "momentum": 0.9}
        with pytest.raises(error):
            F.update_class_means_(**(arguments | bad))
    assert torch.equal(means, before)


def test_nearest_prototypes_errors() -> None:
    features, prototypes = torch.randn(4, 3), unit_rows(6, 3)
    for arguments, message in (
        ((features, prototypes, 7), "1..6"),
        ((features, prototypes, 0), "1..6"),
        ((features, prototypes * 2, 1), "unit rows"),
        ((torch.full((4, 3), float("nan")), prototypes, 1), "NaN"),
        ((torch.randn(4, 2), prototypes, 1), "same D"),
    ):
        with pytest.raises(ValueError, match=message):
            F.nearest_prototypes(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": 0.0}, "sharpness"),
        ({"t": float("nan")}, "sharpness"),
        ({"precision": "bf16"}, "expected 'highest', 'high' or 'medium'"),
        ({"form": "mean"}, "'pairs' or 'eq5'"),
        ({"subset": torch.tensor([1, 1])}, "distinct"),
        ({"subset": torch.tensor([6])}, "0..5"),
        ({"subset": torch.tensor([], dtype=torch.int64)}, "at least one"),
        ({"prototypes": torch.randn(1, 3)}, "at least 2 rows"),
        ({"prototypes": torch.randn(3, 1)}, "D >= 2"),
        ({"prototypes": torch.tensor([[0.0, 0], [1, 0]])}, "row 0 is zero"),
        ({"prototypes": torch.tensor([[float("inf"), 0], [1, 0]])}, "NaN or inf"),
    ],
)
def test_uniformity_loss_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        F.uniformity_loss(**({"prototypes": unit_rows(6, 3)} | arguments))


def test_prototypes_of_low_precision_are_taken_or_refused() -> None:
    features, labels, prototypes, assignment = batch(64, 50, 8)
    low = prototypes.bfloat16()
    ours = F.ipm_loss(features, labels, low, assignment, reduction="none")
    torch.testing.assert_close(ours, reference.ipm_loss(features, labels, low.float(), assignment, None))
    prototypes[7] *= 1.01
    with pytest.raises(ValueError, match=r"row 7 has norm 1\.01"):
        F.ipm_loss(features, torch.full((64,), 3), prototypes, torch.tensor([7, 1, 2] + [7] * 47))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_a_finite_row_changes_nothing(dtype: torch.dtype) -> None:
    means = torch.ones(5, 4, dtype=dtype)
    moved = F.update_class_means(means, torch.full((2, 4), float("nan")), torch.tensor([0, 1]), 0.9, nan_policy="skip")
    assert torch.equal(moved, means)


def test_norms_that_no_float32_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has a norm that torch\.float32 does not hold"):
        F.uniformity_loss(torch.randn(5, 4) * 1e25)
