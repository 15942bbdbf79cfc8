"""The class means of a batch, in batch order, in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fastproto.functional import update_class_means_

from .comparison import Call, Case, Comparison, Provider, Row, Size, Work, compared
from .instances import Pair, batches


@dataclass(frozen=True)
class Inputs:
    means: Tensor
    batches: list[Pair]

    def batch(self, number: int) -> Pair:
        return self.batches[number % len(self.batches)]


def inputs(size: Size, device: torch.device) -> Inputs:
    means = torch.zeros(size["C"], size["D"], device=device)
    return Inputs(means, batches(size["B"], size["C"], size["D"], device))


def ours(given: Inputs) -> Call:
    def call(number: int) -> Tensor:
        update_class_means_(given.means, *given.batch(number), momentum=0.9)
        return given.means

    return call


def naive(given: Inputs) -> Call:
    """Of several samples of a class in a batch only one counts: less than is asked for, as in the authors' code."""
    return _with(given, lambda means, z, labels: means.index_put_((labels,), 0.9 * means[labels] + 0.1 * z))


def whole_queue(given: Inputs) -> Call:
    """The authors' form, which normalises all C rows again."""

    def update(means: Tensor, z: Tensor, labels: Tensor) -> None:
        means.index_put_((labels,), 1.9 * means[labels] + 0.1 * z)
        means.copy_(F.normalize(means, dim=1))

    return _with(given, update)


def _with(given: Inputs, update: Callable[[Tensor, Tensor, Tensor], object]) -> Call:
    def call(number: int) -> Tensor:
        features, labels = given.batch(number)
        update(given.means, F.normalize(features, dim=1), labels)
        return given.means

    return call


UPDATE_CLASS_MEANS = Comparison(
    op="update_class_means",
    sizes={
        "smoke": [{"C": 1_000, "D": 64, "B": 256}],
        "small": [{"C": 1_000, "D": 512, "B": 1024}, {"C": 100_000, "D": 512, "B": 1024}],
        "full": [{"C": c, "D": 512, "B": 1024} for c in (1_000, 10_000, 100_000, 1_000_000)],
    },
    inputs=inputs,
    providers={
        "fastproto": Provider(ours),
        "naive torch": Provider(naive),
        "authors' formula": Provider(whole_queue),
    },
    work=lambda size: Work(flops=4.0 * size["B"] * size["D"], bytes=12.0 * size["B"] * size["D"]),
    graph=True,
    serial_part="the means depend on the order of the batch",
)


@compared(UPDATE_CLASS_MEANS)
def test_update_class_means(case: Case, row: Row) -> None:
    row(case)
