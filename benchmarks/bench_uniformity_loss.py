"""The uniformity loss of all prototypes and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fastproto import reference, uniformity_loss

from .comparison import Call, Case, Comparison, Provider, Row, Size, Work, compared
from .instances import IN_TURN, unit_rows


def differentiated(function: Callable[[Tensor], Tensor], w: Tensor) -> Call:
    leaf = w.clone().requires_grad_()
    return lambda _: torch.autograd.grad(function(leaf), leaf)


def compiled(w: Tensor) -> Call:
    return differentiated(torch.compile(reference.uniformity_loss), w)


def authors_pdist(w: Tensor) -> Call:
    return differentiated(lambda w: torch.pdist(w).square().mul(-2).exp().mean().log(), w)


def work(size: Size) -> Work:
    """C²D operations for the scores, which are symmetric, and 2C²D for the gradient."""
    return Work(flops=3.0 * size["C"] ** 2 * size["D"], bytes=8.0 * size["C"] * size["D"])


UNIFORMITY_LOSS = Comparison(
    op="uniformity_loss",
    sizes={
        "smoke": [{"C": 500, "D": 64}],
        "small": [{"C": 1_000, "D": 64}, {"C": 4_000, "D": 128}],
        "full": [{"C": 1_000, "D": 64}, {"C": 4_000, "D": 128}, {"C": 10_000, "D": 512}],
    },
    inputs=lambda size, device: unit_rows(size["C"], size["D"], device),
    providers={
        "fastproto": Provider(partial(differentiated, uniformity_loss)),
        "naive torch": Provider(partial(differentiated, reference.uniformity_loss), warm=True),
        "torch.compile": Provider(compiled, small=1_000, compiles=True),
        "authors' formula": Provider(authors_pdist, small=1_000, warm=True),
    },
    work=work,
    graph=True,
    serial_part=IN_TURN,
)


@compared(UNIFORMITY_LOSS)
def test_uniformity_loss(case: Case, row: Row) -> None:
    row(case)
