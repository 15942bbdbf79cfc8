"""A training step of the head, without a backbone: loss, gradient of the features, class means.

The same work is done by the authors' formula and by :mod:`fastproto.reference`'s formula in PyTorch, eager and
compiled. Softmax cross-entropy and the proxy losses of metric learning stand where the head would stand in a network:
they multiply the batch with all C rows and also compute the gradient of these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from fastproto import PrototypeHead, reference

from .comparison import Call, Case, Comparison, Provider, Row, Setup, Size, Unavailable, Work, compared
from .instances import Pair, batches, unit_rows
from .peers import imported


@dataclass(frozen=True)
class Inputs:
    size: Size
    prototypes: Tensor
    batches: list[Pair]

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Features that ask for a gradient, and labels."""
        features, labels = self.batches[number % len(self.batches)]
        return features.detach().requires_grad_(), labels


def inputs(size: Size, device: torch.device) -> Inputs:
    c, d = size["C"], size["D"]
    return Inputs(size, unit_rows(c, d, device), batches(size["B"], c, d, device))


def ours(given: Inputs) -> Call:
    head = PrototypeHead(given.size["C"], given.size["D"], prototypes=given.prototypes)
    return partial(_step, given, head.to(given.prototypes.device))


def _step(given: Inputs, loss: Callable[[Tensor, Tensor], Tensor], number: int) -> Tensor | None:
    """One forward and backward; returns the gradient of the features."""
    features, labels = given.batch(number)
    loss(features, labels).backward()
    return features.grad


def first_assignment(prototypes: Tensor) -> Tensor:
    """That of our head, so that the gradients can be compared."""
    return torch.randperm(len(prototypes), generator=torch.Generator().manual_seed(0)).to(prototypes.device)


def authors(given: Inputs) -> Call:
    """The authors' step in PyTorch: gather, CosineSimilarity, normalisation of the whole queue."""
    prototypes, cosine = given.prototypes, torch.nn.CosineSimilarity(dim=1)
    assignment = first_assignment(prototypes)
    queue = F.normalize(torch.randn_like(prototypes), dim=1)

    def step(number: int) -> Tensor | None:
        nonlocal queue
        features, labels = given.batch(number)
        ((1 - cosine(features, prototypes[assignment[labels]])) ** 2).sum().backward()
        with torch.no_grad():
            queue[labels] = 1.9 * queue[labels] + 0.1 * F.normalize(features, dim=1)
            queue = F.normalize(queue, dim=1)
        return features.grad

    return step


def naive(given: Inputs, compiled: bool = False) -> Call:
    """Eq. 6 from :mod:`fastproto.reference`, and the means of the last sample of each class, in PyTorch."""
    prototypes, means = given.prototypes, torch.zeros_like(given.prototypes)
    assignment = first_assignment(prototypes)

    def loss_of(features: Tensor, labels: Tensor) -> Tensor:
        return reference.ipm_loss(features, labels, prototypes, assignment).mean()

    loss = torch.compile(loss_of) if compiled else loss_of

    def step(number: int) -> Tensor | None:
        features, labels = given.batch(number)
        loss(features, labels).backward()
        with torch.no_grad():
            means[labels] = 0.9 * means[labels] + 0.1 * F.normalize(features, dim=1)
        return features.grad

    return step


def with_weights(given: Inputs, loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Setup:
    """A loss of features, learned rows [C, D] and labels; the gradient of the rows is computed, and not applied."""
    weight = given.prototypes.clone().requires_grad_()

    def step(number: int) -> Tensor | None:
        weight.grad = None
        features, labels = given.batch(number)
        loss(features, weight, labels).backward()
        return features.grad

    return Setup(step, products_of(given))


def products_of(given: Inputs) -> Work:
    """The logits, and the gradients of features and rows; the rows are read twice and their gradient written."""
    b, c, d = (given.size[letter] for letter in "BCD")
    kept = given.prototypes
    precision = str(kept.dtype).removeprefix("torch.")
    return Work(6.0 * b * c * d, kept.element_size() * (3.0 * c * d + 2.0 * b * d), precision)


def softmax(given: Inputs) -> Setup:
    return with_weights(given, lambda x, w, y: F.cross_entropy(x @ w.T, y))


def linear_cross_entropy(given: Inputs) -> Setup:
    """In chunks, which never hold all logits; without options it is ``softmax``."""
    found, options = getattr(F, "linear_cross_entropy", None), getattr(torch.nn, "LinearCrossEntropyOptions", None)
    if found is None or options is None:
        raise Unavailable(f"torch {torch.__version__} has no linear_cross_entropy in chunks")
    return with_weights(given, partial(found, options=options()))


def liger(given: Inputs) -> Setup:
    module = imported("liger_kernel.transformers", "liger-kernel")
    loss = module.LigerFusedLinearCrossEntropyLoss()
    return with_weights(given, lambda x, w, y: loss(w, x, y))


def cut_cross_entropy(given: Inputs) -> Setup:
    """In bfloat16, which its kernels are for."""
    found = imported("cut_cross_entropy", "cut-cross-entropy").linear_cross_entropy
    halves = [(features.bfloat16(), labels) for features, labels in given.batches]
    return with_weights(replace(given, prototypes=given.prototypes.bfloat16(), batches=halves), found)


def metric_learning(name: str, given: Inputs) -> Setup:
    """A proxy loss of pytorch-metric-learning, whose proxies are learned."""
    losses = imported("pytorch_metric_learning.losses", "pytorch-metric-learning")
    loss = getattr(losses, name)(given.size["C"], given.size["D"]).to(given.prototypes.device)

    def step(number: int) -> None:
        loss.zero_grad()
        features, labels = given.batch(number)
        loss(features, labels).backward()

    return Setup(step, products_of(given))


def work(size: Size) -> Work:
    """Features in, their gradient out; of each sample a prototype, and a class mean read and written."""
    b, d = size["B"], size["D"]
    return Work(flops=10.0 * b * d, bytes=4.0 * b * d * 5)


def sizes(batch: int, dim: int, classes: list[int]) -> list[Size]:
    return [{"C": c, "D": dim, "B": batch} for c in classes]


BESIDE_D_512 = [{"C": 10_000, "D": 128, "B": 1024}, {"C": 10_000, "D": 64, "B": 1024}]
BESIDE_B_1024 = [{"C": 10_000, "D": 512, "B": 256}, {"C": 10_000, "D": 512, "B": 2048}]
HEAD_STEP = Comparison(
    op="head_step",
    sizes={
        "smoke": sizes(256, 64, [1_000]),
        "small": [*sizes(1024, 512, [100, 1_000, 10_000, 100_000, 1_000_000]), *BESIDE_D_512, *BESIDE_B_1024],
        "full": [
            *sizes(1024, 512, [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]),
            *BESIDE_D_512,
            *BESIDE_B_1024,
        ],
    },
    inputs=inputs,
    providers={
        "fastproto": Provider(ours),
        "authors' formula": Provider(authors, small=100_000, warm=True),
        "naive torch": Provider(naive, warm=True),
        "torch.compile": Provider(partial(naive, compiled=True), small=1_000, compiles=True),
        "softmax": Provider(softmax, small=100_000, warm=True),
        "linear_cross_entropy": Provider(linear_cross_entropy, small=10_000, warm=True),
        "NormalizedSoftmaxLoss": Provider(partial(metric_learning, "NormalizedSoftmaxLoss"), small=10_000, warm=True),
        "ProxyAnchorLoss": Provider(partial(metric_learning, "ProxyAnchorLoss"), small=1_000, warm=True),
        "Liger": Provider(liger, devices=("cuda",)),
        "cut-cross-entropy, bfloat16": Provider(cut_cross_entropy, devices=("cuda",)),
    },
    work=work,
    graph=True,
    serial_part="the rows of the batch are walked in one thread: the class means depend on their order",
)


@compared(HEAD_STEP)
def test_head_step(case: Case, row: Row) -> None:
    row(case)
