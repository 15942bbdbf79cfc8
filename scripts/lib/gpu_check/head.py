"""Times of the head: its kernels and whole training steps."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from fastproto_kernels.batch_order import batch_order
from fastproto_kernels.head_step import head_step_
from fastproto_kernels.ipm_loss import ipm_loss
from fastproto_kernels.update_class_means import update_class_means_
from torch import Tensor

from fastproto import PrototypeHead, reference
from fastproto.backend import resolve, use_backend
from lib.gpu_check.measuring import device, graphed, milliseconds, unit_rows, waiting_is
from lib.gpu_check.steps import Entries

Calls = dict[str, Callable[[], object]]


def head(dry: bool) -> Entries:
    """Loss, gradient and class means: least memory traffic (rows of W and Q in the batch) over the copy bandwidth."""
    source = torch.ones(1000 if dry else 1 << 28, device=device())
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source), dry)
    bandwidth = 8 * source.numel() / copied["median_ms"]  # bytes per millisecond
    yield "copy_tb_per_s", bandwidth / 1e9
    for name, classes, dtype in (
        ("many classes bf16", 100_000, torch.bfloat16),
        ("many classes fp32", 100_000, torch.float32),
        ("100 classes bf16", 100, torch.bfloat16),
        ("half of one class bf16", 1000, torch.bfloat16),
    ):
        yield from head_kernels(name, 30 if dry else classes, torch.float32 if dry else dtype, bandwidth, dry)


def head_kernels(name: str, classes: int, dtype: torch.dtype, bandwidth: float, dry: bool) -> Entries:
    """Each kernel of the head at one shape; for the first shape also the loss in torch."""
    b, dim = (20, 16) if dry else (8192, 512)
    x, w, means = unit_rows(b, dim).to(dtype), unit_rows(classes, dim, 1), torch.zeros(classes, dim, device=device())
    labels, assignment = torch.randint(0, classes, (b,), device=device()), torch.randperm(classes, device=device())
    if name.startswith("half"):
        labels[::2] = 0
    present, size = len(labels.unique()) * dim * 4, b * dim * x.element_size()
    calls: Calls = {
        "loss": lambda: ipm_loss(x, labels, w, assignment),
        "loss, p = 1/2": lambda: ipm_loss(x, labels, w, assignment, power=0.5),
        "loss, p = 0.7": lambda: ipm_loss(x, labels, w, assignment, power=0.7),
        "means": lambda: update_class_means_(means, x, labels, 0.9),
        "both": lambda: head_step_(means, x, labels, w, assignment, momentum=0.9),
        "sort": lambda: batch_order(labels, classes),
    }
    moved = {
        **dict.fromkeys(("loss", "loss, p = 1/2", "loss, p = 0.7"), 2 * size + present),
        "means": size + 2 * present,
        "both": 2 * size + 3 * present,
        "sort": 16 * b,
    }
    for part, call in calls.items():
        took = milliseconds(graphed(call, dry), dry)
        yield f"{name}: {part}", took | {"share_of_copy": moved[part] / took["median_ms"] / bandwidth}
    if name != "many classes bf16":
        return
    leaf = x.detach().requires_grad_()

    def plain() -> Tensor:
        return reference.ipm_loss(leaf, labels, w, assignment).mean()

    forms = {"eager": plain} if dry else {"eager": plain, "torch.compile": torch.compile(plain)}
    for form, loss in forms.items():
        took = milliseconds(lambda loss=loss: torch.autograd.grad(loss(), leaf), dry)  # type: ignore[misc]
        yield f"{name}: loss and gradient in torch, {form}", took


def training(dry: bool) -> Entries:
    """A whole training step of the public head on the kernels: error, time, synchronisation, CUDA graph, compiled."""
    b, classes, dim = (20, 30, 16) if dry else (8192, 10_000, 512)
    w = unit_rows(classes, dim, 1)
    for op in ("head_step_", "ipm_loss", "update_class_means_", "nearest_prototypes"):
        yield f"choice of {op}", str(resolve(op, w))
    x, labels = 3 * unit_rows(b, dim), torch.randint(0, classes, (b,), device=device())
    with use_backend("triton"):
        head = PrototypeHead(classes, dim, prototypes=w.cpu()).to(device())
        yield "gradient's error", gradient_error(head, x, labels, w)
        half = torch.float32 if dry else torch.bfloat16
        features = x.to(half).requires_grad_()
        step = linear_step(head, x, labels, half)
        calls: Calls = {
            "head forward and backward": lambda: torch.autograd.grad(head(features, labels), features),
            "step with one linear layer": step,
            "top 5 labels": lambda: head.predict(features, 5),
        }
        for name, call in calls.items():
            yield name, milliseconds(call, dry)
        if not dry:
            yield from on_a_gpu(head, features, labels, step)
        labels[0] = classes
        step()
        yield "a bad label is said later", message_of(head.check_batches)


def gradient_error(head: PrototypeHead, x: Tensor, labels: Tensor, w: Tensor) -> float:
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    head(leaf, labels).backward()
    reference.ipm_loss(exact, labels, w.double(), head.assignment).mean().backward()
    assert leaf.grad is not None and exact.grad is not None
    return float((leaf.grad - exact.grad).norm() / exact.grad.norm())


def linear_step(head: PrototypeHead, x: Tensor, labels: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A training step of one linear layer and the head."""
    model = torch.nn.Linear(x.shape[1], x.shape[1], device=x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            loss: Tensor = head(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def on_a_gpu(head: PrototypeHead, features: Tensor, labels: Tensor, step: Callable[[], object]) -> Entries:
    """Checks that need a GPU: no synchronisation, the step as a CUDA graph, the compiled head."""
    with waiting_is("error"):
        step()
        head.predict(features, 5)
    yield "waits for the device", "never"
    graph, before = torch.cuda.CUDAGraph(), int(head.updates)
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    yield "steps of a captured graph's replay", int(head.updates) - before
    yield "captured step with one linear layer", milliseconds(graph.replay, dry=False)
    compiled = torch.compile(lambda x: head(x, labels, update_means=False), fullgraph=True)
    yield "compiled", float((compiled(features) - head(features, labels, update_means=False)).abs())


def network(dry: bool) -> Entries:
    """The head's share of a training step of ResNet-50 on 64 pictures of 224 pixels in bfloat16."""
    if dry or importlib.util.find_spec("torchvision") is None:
        yield "ResNet-50", "not measured: " + ("a dry run" if dry else "torchvision is not installed")
        return
    from torchvision.models import resnet50

    b, classes, dim = 64, 1000, 512
    model = resnet50(num_classes=dim).to(device(), memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    head = PrototypeHead(classes, dim, prototypes=unit_rows(classes, dim, 1).cpu()).to(device())
    images = torch.randn(b, 3, 224, 224, device=device()).to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (b,), device=device())
    features = torch.randn(b, dim, device=device(), dtype=torch.bfloat16).requires_grad_()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = head(model(images), labels)
        loss.backward()
        optimizer.step()

    whole = milliseconds(step, dry, seconds=2.0)
    alone = milliseconds(lambda: torch.autograd.grad(head(features, labels), features), dry)
    yield "ResNet-50, whole step", whole
    yield "ResNet-50, the head alone", alone | {"share": alone["median_ms"] / whole["median_ms"]}


def message_of(call: Callable[[], object]) -> str:
    """The message of the ValueError that a call raises."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return "NOTHING WAS SAID"
