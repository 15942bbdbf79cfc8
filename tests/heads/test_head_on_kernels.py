"""The head on the triton backend, against float64: on a GPU, or under the interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastproto import PrototypeHead, reference
from fastproto.ops import head_step as step
from fastproto.ops import ipm_loss as ipm
from fastproto.ops import nearest_prototypes as nearest
from fastproto.ops import update_class_means as means

from ..helpers import unit_rows
from ..kernel_device import DEVICE, batch, needs_cuda, on_kernels  # it skips the file where the kernels cannot run


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the kernels that the test launches; everything in it asks for Triton."""
    with on_kernels(monkeypatch, ipm, means, nearest, step) as launched:
        yield launched


def make(c: int = 12, d: int = 4, **options: Any) -> PrototypeHead:
    return PrototypeHead(c, d, **({"prototypes": unit_rows(c, d)} | options)).to(DEVICE)


@pytest.mark.parametrize(("loss", "power"), [("eq6", None), ("official", None), ("power", 0.5), ("power", 0.7)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_step_of_the_head_is_one_launch(loss: str, power: float | None, reduction: str, calls: list[str]) -> None:
    head = make(loss=loss, power=power, reduction=reduction)
    x, labels, _, _ = batch(20, 12, 4)
    weight = torch.rand(20, device=DEVICE)
    x.requires_grad_()
    ours = head(x, labels, weight)
    ours.sum().backward()
    assert calls == ["head_step_"] and int(head.updates) == 1
    w, leaf = head.prototypes.double(), x.detach().double().requires_grad_()
    true = reference.ipm_loss(leaf, labels, w, head.assignment, weight.double(), loss, power or 2.0)
    true = true if reduction == "none" else true.sum() / (20 if reduction == "mean" else 1)
    true.sum().backward()
    torch.testing.assert_close(ours.double(), true.detach(), rtol=1e-5, atol=1e-6, check_dtype=False)
    assert x.grad is not None and leaf.grad is not None
    torch.testing.assert_close(x.grad.double(), leaf.grad, rtol=1e-5, atol=1e-6)
    moved = reference.update_class_means(torch.zeros(12, 4, dtype=torch.float64, device=DEVICE), x, labels, 0.9)
    torch.testing.assert_close(head.class_means.double(), moved.detach(), rtol=1e-5, atol=1e-6)
    head.eval()(x, labels)
    assert calls == ["head_step_", "ipm_loss"] and int(head.updates) == 1


def test_mixup_and_checkpointed_forwards_move_the_means_once(calls: list[str]) -> None:
    head = make()
    x, labels, _, _ = batch(8, 12, 4)
    x.requires_grad_()
    head(x, labels, labels2=labels.flip(0), lam=0.7)
    assert calls == ["ipm_loss", "ipm_loss", "update_class_means_"] and int(head.updates) == 1
    calls.clear()
    checkpoint(head, x, labels, use_reentrant=False).backward()
    assert calls == ["head_step_", "ipm_loss"] and int(head.updates) == 2


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("read", ["check_batches", "reassign", "align", "state_dict"])
def test_a_bad_batch_of_the_head_is_raised_at_the_next_look(read: str) -> None:
    head = make()
    x, labels, _, _ = batch(8, 12, 4)
    head(x, labels)
    before = head.class_means.clone()
    bad_x, bad_labels = x.clone(), labels.clone()
    bad_x[:4, 1], bad_labels[4:] = torch.nan, 12
    assert head(bad_x, bad_labels).item() == 0
    assert torch.equal(head.class_means, before)
    with pytest.raises(ValueError, match=r"earlier batches were left out on the device: labels.*; features"):
        getattr(head, read)()
    getattr(head, read)()  # said once; training can go on
    head(x, labels)
    head.check_batches()


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("means_kind", ["ema", "official"])
def test_the_head_counts_what_it_skips(means_kind: str) -> None:
    head = make(nan_policy="skip", means=means_kind)
    x, labels, _, _ = batch(8, 12, 4)
    x[2, 0], x[5] = torch.nan, torch.inf
    good = torch.tensor([0, 1, 3, 4, 6, 7], device=DEVICE)
    alone = make(nan_policy="skip", means=means_kind, prototypes=head.prototypes.cpu(), reduction="sum")
    torch.testing.assert_close(head(x, labels), alone(x[good], labels[good]) / 8)
    torch.testing.assert_close(head.class_means, alone.class_means)
    assert int(head.skipped) == 2 and int(alone.skipped) == 0
    head(x, labels, labels2=labels.flip(0), lam=0.3)
    assert int(head.skipped) == 4, "mixup: once for each sample"
    head.reassign()
    other = make()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.class_means, head.class_means) and int(other.skipped) == 0


def test_predictions(calls: list[str]) -> None:
    head = make()
    x, _, _, _ = batch(30, 12, 4)
    labels, cosines = head.predict_with_cosines(x, 3)
    assert calls == ["top_scores"]
    values, expected = head.logits(x).topk(3, dim=1)
    assert torch.equal(labels, expected)
    torch.testing.assert_close(cosines, values, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_on_the_kernels(calls: list[str]) -> None:
    model, head = nn.Linear(6, 4, device=DEVICE), make()

    def forward(x: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = head(model(x), labels)
        return value

    compiled = torch.compile(forward, fullgraph=True, backend="aot_eager")
    x, labels = torch.randn(8, 6, device=DEVICE), torch.randint(0, 12, (8,), device=DEVICE)
    results = []
    for function in (forward, compiled):
        head.class_means.zero_()
        model.zero_grad()
        loss = function(x, labels)
        loss.backward()
        results.append((loss.detach(), head.class_means.clone(), model.weight.grad))
    assert calls == ["head_step_"] * 2 and int(head.updates) == 2
    for eager, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager)
    labels[3] = 99
    compiled(x, labels)
    with pytest.raises(ValueError, match="labels outside"):
        head.check_batches()


def test_five_runs_same_bits() -> None:
    x, labels, w, _ = batch(200, 12, 4)

    def run() -> list[Tensor]:
        head, leaf = make(prototypes=w.cpu()), x.clone().requires_grad_()
        loss = head(leaf, labels)
        loss.backward()
        assert leaf.grad is not None
        return [loss.detach(), leaf.grad, head.class_means, *head.predict_with_cosines(x, 2)]

    first = run()
    for _ in range(4):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


@needs_cuda
def test_a_step_inside_a_cuda_graph_and_without_a_wait() -> None:
    model, head = nn.Linear(64, 32, device=DEVICE), make(40, 32, nan_policy="skip")
    x, labels = torch.randn(256, 64, device=DEVICE), torch.randint(0, 40, (256,), device=DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = head(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            train()
    torch.cuda.current_stream().wait_stream(stream)
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        train()
        head.predict(model(x), 5)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train()
    updates, state = int(head.updates), [t.clone() for t in (model.weight, model.bias, head.class_means)]
    graph.replay()
    replayed = [t.detach().clone() for t in (loss, model.weight, model.bias, head.class_means)]
    assert int(head.updates) == updates + 1
    with torch.no_grad():
        for target, value in zip((model.weight, model.bias, head.class_means), state, strict=True):
            target.copy_(value)
    eager = train()
    for ours, true in zip(replayed, (eager, model.weight, model.bias, head.class_means), strict=True):
        torch.testing.assert_close(ours, true.detach())
