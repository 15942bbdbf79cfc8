"""PrototypeHead: Algorithm 1 on one process, its state, its errors."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastproto import PrototypeHead, estimate_prototypes, ipm_loss, reference, update_class_means

from ..helpers import unit_rows


def make(c: int = 12, d: int = 4, **options: Any) -> PrototypeHead:
    return PrototypeHead(c, d, **({"prototypes": unit_rows(c, d)} | options))


def test_forward_is_the_loss_and_moves_the_means() -> None:
    head = make()
    x, y = torch.randn(8, 4, requires_grad=True), torch.randint(0, 12, (8,))
    loss = head(x, y)
    torch.testing.assert_close(loss, ipm_loss(x, y, head.prototypes, head.assignment))
    expected = reference.update_class_means(torch.zeros(12, 4), x.detach(), y, 0.9)
    torch.testing.assert_close(head.class_means, expected)
    assert int(head.updates) == 1
    means = head.class_means.clone()
    loss.backward()
    head.eval()(x, y)
    head.train()(x, y, update_means=False)
    assert torch.equal(head.class_means, means) and int(head.updates) == 1
    assert not list(head.parameters())


def test_a_checkpointed_forward_counts_once() -> None:
    head = make()
    x, y = torch.randn(8, 4, requires_grad=True), torch.randint(0, 12, (8,))
    checkpoint(head, x, y, use_reentrant=False).backward()
    assert int(head.updates) == 1
    checkpoint(head, x, y, use_reentrant=True).backward()
    assert int(head.updates) == 2


def test_mixup() -> None:
    head = make()
    x, y1, y2 = torch.randn(6, 4), torch.randint(0, 12, (6,)), torch.randint(0, 12, (6,))
    lam = torch.tensor([0.1, 0.9, 0.5, 0.3, 1.0, 0.0])
    loss = head(x, y1, labels2=y2, lam=lam)
    one, two = (ipm_loss(x, y, head.prototypes, head.assignment, reduction="none") for y in (y1, y2))
    torch.testing.assert_close(loss, (lam * one + (1 - lam) * two).mean())
    larger = torch.where(lam >= 0.5, y1, y2)
    torch.testing.assert_close(head.class_means, reference.update_class_means(torch.zeros(12, 4), x, larger, 0.9))
    torch.testing.assert_close(head.eval()(x, y1, labels2=y2, lam=0.25), (0.25 * one + 0.75 * two).mean())
    with pytest.raises(ValueError, match="go together"):
        head(x, y1, labels2=y2)


def test_weights_and_reductions() -> None:
    x, y, weight = torch.randn(6, 4), torch.randint(0, 12, (6,)), torch.rand(6)
    w = unit_rows(12, 4)
    per_sample = PrototypeHead(12, 4, prototypes=w, reduction="none")(x, y, weight)
    assert per_sample.shape == (6,)
    torch.testing.assert_close(PrototypeHead(12, 4, prototypes=w, reduction="sum")(x, y, weight), per_sample.sum())
    torch.testing.assert_close(PrototypeHead(12, 4, prototypes=w)(x, y, weight), per_sample.sum() / 6)


def test_official_variant() -> None:
    head = make(loss="official", means="official")
    torch.testing.assert_close(head.class_means.norm(dim=1), torch.ones(12))
    before = head.class_means.clone()
    x, y = torch.randn(3, 4), torch.tensor([5, 5, 2])
    loss = head(x, y)
    cosines = (reference.normalise(x) * head.prototypes[head.assignment[y]]).sum(1)
    torch.testing.assert_close(loss, (1 - cosines).square().mean())
    torch.testing.assert_close(head.class_means, reference.update_official_means(before, x, y))
    z = reference.normalise(x)  # of two samples of class 5 the last counts
    torch.testing.assert_close(head.class_means[5], nn.functional.normalize(1.9 * before[5] + 0.1 * z[1], dim=0))


def test_reassign_follows_the_means() -> None:
    head = make()
    wanted = torch.randperm(12)
    head.class_means.copy_(head.prototypes[wanted])
    found = head.reassign()
    assert torch.equal(head.assignment, wanted) and found.certified
    assert head.reassign().changed == 0
    labels = torch.arange(12)
    assert torch.equal(head.predict(head.prototypes[wanted])[:, 0], labels)
    assert torch.equal(head.logits(head.prototypes[wanted]).argmax(1), labels)
    assert torch.equal(head.weight_by_label(), head.prototypes[wanted])


def test_predict_agrees_with_logits() -> None:
    head, x = make(), torch.randn(20, 4)
    values, labels = head.logits(x).topk(3, dim=1)
    assert torch.equal(head.predict(x, k=3), labels)
    torch.testing.assert_close(head.predict_with_cosines(x, 3)[1], values)


def test_logits_are_differentiable() -> None:
    x = torch.randn(5, 4, requires_grad=True)
    nn.functional.cross_entropy(make().logits(x), torch.arange(5)).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_align_turns_the_prototypes_but_not_their_geometry() -> None:
    head = make(20, 3)
    head.class_means.normal_()
    gram = head.prototypes @ head.prototypes.T
    before = head.reassign().objective
    found = head.align()
    torch.testing.assert_close(head.prototypes @ head.prototypes.T, gram)
    assert found.assignment.objective > before
    assert torch.equal(head.assignment, found.assignment.permutation)


def test_state_survives_dtype_changes() -> None:
    for change in (lambda m: m.half(), lambda m: m.bfloat16(), lambda m: m.double(), lambda m: m.to(torch.bfloat16)):
        model = change(nn.Sequential(nn.Linear(4, 4), make()))
        dtypes = [value.dtype for value in model[1].state_dict().values()]
        assert dtypes == [torch.float32, torch.int64, torch.float32, torch.float32, torch.int64]
        assert not any(buffer.dtype.is_floating_point for buffer in (model[1].skipped, model[1].flag))
        assert model[0].weight.dtype != torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_give_a_float32_loss(dtype: torch.dtype) -> None:
    x = torch.randn(8, 4).to(dtype).requires_grad_()
    loss = make()(x, torch.randint(0, 12, (8,)))
    loss.backward()
    assert loss.dtype == torch.float32 and x.grad is not None and x.grad.dtype == dtype


def test_autocast() -> None:
    model, head = nn.Linear(6, 4), make()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(model(torch.randn(8, 6)), torch.randint(0, 12, (8,)))
    assert loss.dtype == torch.float32
    loss.backward()
    assert model.weight.grad is not None and model.weight.grad.dtype == torch.float32


def test_state_dict_round_trip() -> None:
    head = make()
    head(torch.randn(30, 4), torch.randint(0, 12, (30,)))
    head.reassign()
    other = make(seed=5)
    other.load_state_dict(head.state_dict())
    for a, b in zip(head.buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b)
    assert set(head.state_dict()) == {"prototypes", "assignment", "class_means", "prices", "updates"}


def test_a_broken_state_dict_is_refused() -> None:
    state = make().state_dict()
    state["assignment"] = torch.zeros(12, dtype=torch.int64)
    head = make()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with pytest.raises(RuntimeError, match="more than once"):
        head.load_state_dict(state)
    for name, value in (("prototypes", 5 * unit_rows(12, 4)), ("class_means", torch.full((12, 4), float("nan")))):
        with pytest.raises(RuntimeError, match=name):
            head.load_state_dict(before | {name: value})
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        make(11).load_state_dict(state)


def test_half_precision_states_are_read_as_float32() -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in make().state_dict().items()}
    for assign in (False, True):
        head = make()
        head.load_state_dict(state, assign=assign)
        assert head.prototypes.dtype == head.class_means.dtype == head.prices.dtype == torch.float32


def test_autocast_leaves_predictions_alone() -> None:
    head, x = make(200, 8), torch.randn(100, 8)
    with torch.autocast("cpu", torch.bfloat16):
        within = head.predict(x, k=3), head.logits(x)
    assert torch.equal(within[0], head.predict(x, k=3)) and torch.equal(within[1], head.logits(x))


def test_meta_device_estimates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastproto.head.estimate_prototypes", lambda *a, **k: pytest.fail("estimated"))
    with torch.device("meta"):
        head = PrototypeHead(1000, 64)
    state = make(1000, 64).state_dict()
    head.load_state_dict(state, assign=True)
    assert torch.equal(head.prototypes, state["prototypes"])


def test_prototypes_of_every_kind() -> None:
    made = estimate_prototypes(10, 5)
    for given in (made, made.vectors, made.vectors.double(), None):
        assert torch.equal(PrototypeHead(10, 5, prototypes=given).prototypes, made.vectors)


def test_empty_batch() -> None:
    head = make()
    x = torch.zeros(0, 4, requires_grad=True)
    loss = head(x, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and x.grad is not None and x.grad.shape == (0, 4)
    assert int(head.updates) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_training_equals_eager() -> None:
    w = unit_rows(12, 4)
    data = [(torch.randn(8, 6), torch.randint(0, 12, (8,))) for _ in range(3)]
    outcomes = []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(6, 4))
        head = PrototypeHead(12, 4, prototypes=w)

        def step(x: torch.Tensor, y: torch.Tensor, model: nn.Module = model, head: nn.Module = head) -> torch.Tensor:
            loss: torch.Tensor = head(model(x), y)
            return loss

        run = torch.compile(step, fullgraph=True, backend="aot_eager") if compiled else step
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for x, y in data:
            loss = run(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        outcomes.append([*losses, head.class_means.clone(), head.updates.clone(), model[0].weight.detach()])
    for eager, compiled_value in zip(*outcomes, strict=True):
        torch.testing.assert_close(compiled_value, eager)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "at least 2"),
        ({"dim": 1}, "at least 2"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"loss": "l2"}, "'l2'"),
        ({"means": "mean"}, "'mean'"),
        ({"reduction": "max"}, "'max'"),
        ({"prototypes": unit_rows(5, 3)}, r"\[5, 3\]; expected \[12, 4\]"),
        ({"prototypes": 2 * unit_rows(12, 4)}, "norm 2"),
        ({"prototypes": torch.full((12, 4), float("nan"))}, "NaN"),
        ({"prototypes": unit_rows(12, 4).requires_grad_()}, "require grad"),
    ],
)
def test_constructor_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrototypeHead(**({"num_classes": 12, "dim": 4} | arguments))


def test_bad_batches_change_nothing() -> None:
    head = make()
    head(torch.randn(8, 4), torch.randint(0, 12, (8,)))
    state = {name: value.clone() for name, value in head.state_dict().items()}
    nan = torch.randn(3, 4)
    nan[1, 2] = float("nan")
    for x, y in (
        (torch.randn(3, 4), torch.tensor([0, 1, 12])),
        (torch.randn(3, 4), torch.tensor([0, -1, 2])),
        (torch.randn(3, 5), torch.tensor([0, 1, 2])),
        (nan, torch.tensor([0, 1, 2])),
    ):
        with pytest.raises(ValueError, match="expected"):
            head(x, y)
    assert all(torch.equal(value, state[name]) for name, value in head.state_dict().items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_compiled_equals_eager() -> None:
    torch.manual_seed(0)
    eager = nn.ModuleDict({"backbone": nn.Linear(6, 4), "head": make()})
    compiled = copy.deepcopy(eager)

    def step(modules: nn.ModuleDict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = modules["head"](modules["backbone"](x), y)
        return loss

    run = torch.compile(partial(step, compiled), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            x, y = torch.randn(8, 6), torch.randint(0, 12, (8,))
            losses = []
            for modules, call in ((eager, partial(step, eager)), (compiled, run)):
                modules.zero_grad()
                losses.append(call(x, y))
                losses[-1].backward()
            assert torch.equal(*losses)
            for ours, theirs in zip(eager.parameters(), compiled.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad)
    for name, buffer in eager.named_buffers():
        assert torch.equal(buffer, compiled.get_buffer(name)), name
    assert int(eager["head"].updates) == 3


def test_rows_that_are_not_finite_are_skipped_on_request() -> None:
    prototypes, assignment, means = unit_rows(12, 4), torch.randperm(12), torch.zeros(12, 4)
    for dtype in (torch.float32, torch.float64):
        x, y = torch.randn(6, 4, dtype=dtype), torch.arange(6)
        x[2, 1], x[4, 0] = float("nan"), float("inf")
        good = torch.tensor([0, 1, 3, 5])
        x.requires_grad_()
        loss = ipm_loss(x, y, prototypes, assignment, reduction="none", nan_policy="skip")
        loss.sum().backward()
        alone = x.detach()[good].requires_grad_()
        expected = ipm_loss(alone, y[good], prototypes, assignment, reduction="none")
        expected.sum().backward()
        torch.testing.assert_close(loss[good], expected)
        assert x.grad is not None and alone.grad is not None
        torch.testing.assert_close(x.grad[good], alone.grad)
        assert loss[[2, 4]].tolist() == [0, 0] and x.grad[[2, 4]].eq(0).all()
        moved = update_class_means(means, x.detach(), y, 0.9, nan_policy="skip")
        torch.testing.assert_close(moved[:6][good], update_class_means(means, alone.detach(), y[good], 0.9)[good])
        assert moved[[2, 4]].eq(0).all()
        with pytest.raises(ValueError, match="first in row 2"):
            update_class_means(means, x.detach(), y, 0.9)
