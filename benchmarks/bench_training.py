"""A training step and an epoch, ours and PSC's (the usual learned linear layer and softmax), in parts.

A step consists of ``data`` (a batch drawn, augmented and normalised), ``backbone`` (forward, backward, optimiser) and
``head`` (loss and gradient of the features; ours with its class means, PSC with the update of its weights). Ours adds
``assignment``, once an epoch. CIFAR-100 is read from the folder ``--cifar100``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial

import torch
from torch import Tensor, nn

from fastproto import PrototypeHead, assign
from fastproto.baselines import LinearHead
from fastproto.data import DataSplits, collate, load_data
from fastproto.models import build_backbone

from .comparison import Call, Case, Comparison, Provider, Row, Setup, Size, Unavailable, compared
from .given import GIVEN
from .instances import SEQUENTIAL
from .timing import ROTATED

MODELS = {"digits": "mlp", "glyphs": "cnn", "cifar100": "resnet20"}
Head = PrototypeHead | LinearHead


@dataclass
class Task:
    """A data set, its size and the device; networks are built by the providers that need them."""

    size: Size
    data: DataSplits | None
    device: torch.device
    order: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def splits(self) -> DataSplits:
        if self.data is None:
            raise Unavailable("--cifar100 names no folder")
        return self.data

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures and labels of some samples, augmented as in training."""
        images, labels = collate(self.splits.train.__getitems__(chosen.tolist()))  # type: ignore[attr-defined]  # of each set in use here
        pixels = images.to(self.device).float() / 255
        if self.splits.augmentation is not None:
            pixels = self.splits.augmentation(pixels)
        return self.splits.preprocessing.normalise(pixels), labels.to(self.device)

    def shuffled(self) -> tuple[Tensor, ...]:
        """The samples of an epoch, batch by batch."""
        order: tuple[Tensor, ...] = torch.randperm(len(self.splits.train), generator=self.order).split(self.size["B"])
        return order

    @cached_property
    def full(self) -> Iterator[Tensor]:
        """The full batches of one epoch after the other."""
        epochs = (self.shuffled() for _ in itertools.count())
        return (chosen for epoch in epochs for chosen in epoch if len(chosen) == self.size["B"])

    def drawn(self) -> tuple[Tensor, Tensor]:
        return self.batch(next(self.full))

    def backbone(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        read = self.splits.preprocessing
        network = build_backbone(
            MODELS[self.size["data"]], channels=read.channels, image_size=read.image_size, dim=self.size["D"]
        ).to(self.device)
        return network, optimiser(network)

    def head(self, ours: bool) -> tuple[Head, torch.optim.Optimizer | None]:
        count = len(self.splits.class_names)
        if ours:
            return PrototypeHead(count, self.size["D"]).to(self.device), None
        head = LinearHead(count, self.size["D"]).to(self.device)
        return head, optimiser(head)


def optimiser(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)


@cache
def loaded(name: str, classes: int) -> DataSplits | None:
    if name != "cifar100":
        return load_data(name, num_classes=None if name == "digits" else classes)
    if GIVEN.cifar100 is None:
        return None
    if (GIVEN.cifar100 / "train").is_dir():
        return load_data("image-folder", root=str(GIVEN.cifar100), augment="crop_flip", cache="true")
    return load_data("cifar100", root=str(GIVEN.cifar100))


def inputs(size: Size, device: torch.device) -> Task:
    return Task(size, loaded(size["data"], size["C"]), device)


def data(task: Task) -> Setup:
    return Setup(lambda _: task.drawn(), facts=lambda: {"batches_per_epoch": len(task.shuffled())})


def backbone(task: Task) -> Call:
    (network, optimizer), (pixels, _) = task.backbone(), task.drawn()
    gradient = torch.randn(len(pixels), task.size["D"], device=task.device) / len(pixels)

    def call(_: int) -> None:
        optimizer.zero_grad()
        network(pixels).backward(gradient)
        optimizer.step()

    return call


def head(ours: bool, task: Task) -> Call:
    module, optimizer = task.head(ours)
    labels = [task.splits.train.labels[next(task.full)].to(task.device) for _ in range(ROTATED)]
    features = [torch.randn(len(y), task.size["D"], device=task.device) for y in labels]

    def call(number: int) -> None:
        x, y = (each[number % len(labels)] for each in (features, labels))
        if optimizer is not None:
            optimizer.zero_grad()
        module(x.detach().requires_grad_(), y).backward()
        if optimizer is not None:
            optimizer.step()

    return call


def step(module: Head, networks: tuple[nn.Module, list[torch.optim.Optimizer]], batch: tuple[Tensor, Tensor]) -> None:
    network, optimizers = networks
    for optimizer in optimizers:
        optimizer.zero_grad()
    module(network(batch[0]), batch[1]).backward()
    for optimizer in optimizers:
        optimizer.step()


def _networks(ours: bool, task: Task) -> tuple[Head, tuple[nn.Module, list[torch.optim.Optimizer]]]:
    (network, optimizer), (module, own) = task.backbone(), task.head(ours)
    return module, (network, [optimizer] if own is None else [optimizer, own])


def whole_step(ours: bool, task: Task) -> Call:
    module, networks = _networks(ours, task)
    return lambda _: step(module, networks, task.drawn())


def assignment(task: Task) -> Setup:
    """Of the class means of an untrained backbone, with no assignment before."""
    module, (network, _) = _networks(True, task)
    assert isinstance(module, PrototypeHead)
    with torch.no_grad():
        for chosen in task.shuffled()[:50]:
            pixels, labels = task.batch(chosen)
            module(network(pixels), labels)
    means, prototypes = module.class_means, module.prototypes
    return Setup(lambda _: assign(means, prototypes), serial_part=SEQUENTIAL)


def epoch(ours: bool, task: Task) -> Call:
    module, networks = _networks(ours, task)
    for _ in range(2):  # the first steps compile
        step(module, networks, task.drawn())
    if isinstance(module, PrototypeHead):
        module.reassign()

    def call(_: int) -> None:
        for chosen in task.shuffled():
            step(module, networks, task.batch(chosen))
        if isinstance(module, PrototypeHead):
            module.reassign()

    return call


DIGITS: Size = {"data": "digits", "C": 10, "D": 5, "B": 64}
GLYPHS: Size = {"data": "glyphs", "C": 200, "D": 16, "B": 64}
MANY_GLYPHS: Size = {"data": "glyphs", "C": 1_000, "D": 64, "B": 64}
CIFAR100: Size = {"data": "cifar100", "C": 100, "D": 50, "B": 128}
TRAINING_STEP = Comparison(
    op="training_step",
    sizes={
        "smoke": [DIGITS],
        "small": [DIGITS, GLYPHS, MANY_GLYPHS, CIFAR100],
        "full": [DIGITS, GLYPHS, MANY_GLYPHS, CIFAR100],
    },
    inputs=inputs,
    providers={
        "data": Provider(data),
        "backbone": Provider(backbone),
        "fastproto, head": Provider(partial(head, True)),
        "PSC, head": Provider(partial(head, False)),
        "fastproto, assignment": Provider(assignment),
        "fastproto, whole step": Provider(partial(whole_step, True)),
        "PSC, whole step": Provider(partial(whole_step, False)),
    },
    serial_part="a batch is small; the head walks its rows in one thread",
)
TRAINING_EPOCH = Comparison(
    op="training_epoch",
    sizes={"smoke": [DIGITS], "small": [DIGITS, GLYPHS], "full": [DIGITS, GLYPHS, MANY_GLYPHS, CIFAR100]},
    inputs=inputs,
    providers={
        "fastproto": Provider(partial(epoch, True), warm=True),
        "PSC": Provider(partial(epoch, False), warm=True),
    },
    slow=2.0,
    serial_part="batches are small, and are drawn and augmented between steps",
)


@compared(TRAINING_STEP)
def test_training_step(case: Case, row: Row) -> None:
    row(case)


@compared(TRAINING_EPOCH)
def test_training_epoch(case: Case, row: Row) -> None:
    row(case)
