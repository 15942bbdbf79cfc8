"""The handwritten digits, a small backbone for them, and how well a head names them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from fastproto import PrototypeHead
from fastproto.data import load_data
from fastproto.models import build_backbone
from fastproto.training import OptimConfig
from fastproto.training.classifier import learning_rate_factor, optimizer_of

C, D, BATCH = 10, 5, 64


@dataclass(frozen=True)
class Budget:
    """How long and how fast: the optimiser is that of fastproto-train."""

    epochs: int = 1
    lr: float = 1e-3
    seed: int = 0
    per_epoch: float = 4.0  # renewals

    @property
    def optim(self) -> OptimConfig:
        return OptimConfig(epochs=self.epochs, lr=self.lr, warmup_epochs=0)


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures [B, 1, 8, 8] float32 and labels [B] to train on, and the same to test on."""
    data = load_data("digits")
    train: Any = data.train  # a set in memory
    test: Any = data.test
    pixels = [data.preprocessing.normalise(part.images.float() / 255) for part in (train, test)]
    return pixels[0], train.labels, pixels[1], test.labels


def loader(budget: Budget) -> DataLoader[tuple[Tensor, ...]]:
    """Batches in another order in each pass; a new loader begins with the first order again."""
    images, labels, *_ = digits()
    order = torch.Generator().manual_seed(budget.seed)
    return DataLoader(TensorDataset(images, labels), BATCH, shuffle=True, generator=order)


def steps_per_epoch() -> int:
    return -(-len(digits()[0]) // BATCH)


def optimiser(model: nn.Module, budget: Budget) -> tuple[Optimizer, LambdaLR]:
    """As fastproto-train makes them; the rate falls after every step."""
    made = optimizer_of(budget.optim, model.parameters())
    steps = budget.epochs * steps_per_epoch()
    return made, LambdaLR(made, lambda step: learning_rate_factor(budget.optim, step, steps))


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_backbone("mlp", channels=1, image_size=8, dim=D)


def head(seed: int = 0) -> PrototypeHead:
    return PrototypeHead(C, D, seed=seed)


def plain_loop(model: nn.Module, own: PrototypeHead, budget: Budget, *, renewed: bool = True) -> None:
    """The loop of docs/integrations.md, with renewals at the rate of the budget."""
    optimizer, schedule = optimiser(model, budget)
    every = round(steps_per_epoch() / budget.per_epoch)
    batches, step = loader(budget), 0
    for _ in range(budget.epochs):
        for images, labels in batches:
            if renewed and step > 0 and step % every == 0:
                own.reassign()
            optimizer.zero_grad()
            own(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            step += 1


@cache
def _trained() -> nn.Module:
    model = mlp()
    plain_loop(model, head(), Budget(epochs=3, lr=1e-2))
    return model


def trained_mlp() -> nn.Module:
    """A backbone that was trained with the first assignment of ``head()``.

    With another first assignment, that of ``head(1)``, it names few digits until the assignment is renewed: the rate of
    ``Budget()`` is too low to learn the digits anew in an epoch.
    """
    return copy.deepcopy(_trained())


@torch.no_grad()
def accuracy(model: nn.Module, own: PrototypeHead) -> float:
    """Of the test part."""
    model.eval()
    own.eval()
    images, labels = digits()[2:]
    return float((own.predict(model(images))[:, 0] == labels).double().mean())
