"""The input-to-prototype loss and its gradient, by power, for features far from and near their prototypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fastproto import ipm_loss, reference

from .comparison import Call, Case, Comparison, Provider, Row, Size, Work, compared
from .instances import batches, unit_rows


@dataclass(frozen=True)
class Inputs:
    batches: list[tuple[Tensor, Tensor]]
    prototypes: Tensor
    assignment: Tensor

    def batch(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features, labels = self.batches[number % len(self.batches)]
        return features.detach().requires_grad_(), labels, self.prototypes, self.assignment


def inputs(size: Size, device: torch.device) -> Inputs:
    c, d = size["C"], size["D"]
    prototypes = unit_rows(c, d, device)
    assignment = torch.randperm(c, generator=torch.Generator().manual_seed(2)).to(device)
    drawn = batches(size["B"], c, d, device)
    if size["features"] == "near":
        drawn = [(prototypes[assignment[y]] + 0.1 * F.normalize(x, dim=1), y) for x, y in drawn]
    return Inputs(drawn, prototypes, assignment)


def ours(power: float, given: Inputs) -> Call:
    return partial(_gradient, partial(ipm_loss, power=power), given)


def naive(given: Inputs, compiled: bool = False) -> Call:
    loss = torch.compile(reference.ipm_loss) if compiled else reference.ipm_loss
    return partial(_gradient, lambda *batch: loss(*batch).mean(), given)


def _gradient(loss: Callable[..., Tensor], given: Inputs, number: int) -> Tensor | None:
    features, *rest = given.batch(number)
    loss(features, *rest).backward()
    return features.grad


def work(size: Size) -> Work:
    return Work(flops=8.0 * size["B"] * size["D"], bytes=12.0 * size["B"] * size["D"])


def sizes(batch: int, shapes: list[tuple[int, int]], features: tuple[str, ...]) -> list[Size]:
    return [{"C": c, "D": d, "B": batch, "features": kind} for c, d in shapes for kind in features]


SHAPES = [(1_000, 64), (1_000, 512), (100_000, 512)]
IPM_LOSS = Comparison(
    op="ipm_loss",
    sizes={
        "smoke": sizes(256, [(1_000, 64)], ("far",)),
        "small": sizes(1024, SHAPES, ("far", "near")),
        "full": sizes(1024, SHAPES, ("far", "near")),
    },
    inputs=inputs,
    providers={
        "fastproto, p = 2": Provider(partial(ours, 2.0)),
        "fastproto, p = 1": Provider(partial(ours, 1.0)),
        "fastproto, p = 1/2": Provider(partial(ours, 0.5)),
        "fastproto, p = 0.7": Provider(partial(ours, 0.7)),
        "naive torch": Provider(naive),
        "torch.compile": Provider(partial(naive, compiled=True), small=1_000, compiles=True),
    },
    work=work,
    graph=True,
    serial_part="the rows of the batch are walked in one thread",
)


@compared(IPM_LOSS)
def test_ipm_loss(case: Case, row: Row) -> None:
    row(case)
