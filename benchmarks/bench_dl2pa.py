"""The authors' loop: a step and a renewal by ``fastproto.compat.dl2pa`` beside their formulas in PyTorch and SciPy.

A step is what their loop does for a batch but the backbone: prototypes of the labels, class means, loss and gradient,
cosines with all prototypes. Their renewal solves the C×C scores with SciPy, then copies a column for each label.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.compat.dl2pa import BLoss, fixed_Classifier

from .comparison import Call, Case, Comparison, Provider, Row, Size, Work, compared
from .instances import SEQUENTIAL, Pair, batches, matching, unit_rows
from .peers import imported
from .timing import ROTATED

Batches = tuple[Tensor, list[Pair]]


def inputs_of_step(size: Size, device: torch.device) -> Batches:
    """Prototypes, and features and labels of some batches."""
    _, prototypes = matching("clustered", size["C"], size["D"], device)
    return prototypes, batches(size["B"], size["C"], size["D"], device)


def inputs_of_renewal(size: Size, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Class means that differ from one renewal to the next, and prototypes."""
    means, prototypes = matching("clustered", size["C"], size["D"])
    moved = [means + 0.5 * unit_rows(size["C"], size["D"], seed=seed) for seed in range(ROTATED)]
    return [F.normalize(each, dim=1).to(device) for each in moved], prototypes.to(device)


def ours(prototypes: Tensor) -> fixed_Classifier:
    return fixed_Classifier(prototypes.shape[1], len(prototypes), prototypes, prototypes.device)


def our_step(given: Batches) -> Call:
    prototypes, drawn = given
    classifier, criterion = ours(prototypes), nn.CosineSimilarity(eps=1e-9)

    def call(number: int) -> None:
        features, target = drawn[number % len(drawn)]
        feat = features.detach().requires_grad_()
        rows = classifier.polars[:, target].T
        classifier.forward_momentum(feat.detach(), target)
        loss = BLoss(criterion, feat, rows)
        classifier.predict(feat)
        loss.backward()

    return call


def their_step(given: Batches) -> Call:
    prototypes, drawn = given
    columns, criterion = prototypes.T.contiguous(), nn.CosineSimilarity(eps=1e-9)
    queue = F.normalize(torch.randn_like(prototypes), dim=1)

    def call(number: int) -> None:
        nonlocal queue
        features, target = drawn[number % len(drawn)]
        feat = features.detach().requires_grad_()
        rows = columns[:, target].T
        with torch.no_grad():
            queue[target] = 1.9 * queue[target] + 0.1 * F.normalize(feat, dim=1)
            queue = F.normalize(queue, dim=1)
        loss = (1 - criterion(feat, rows)).square().sum()
        with torch.no_grad():
            F.normalize(feat, dim=1) @ columns
        loss.backward()

    return call


def our_renewal(given: tuple[list[Tensor], Tensor]) -> Call:
    means, prototypes = given
    classifier = ours(prototypes)

    def call(number: int) -> None:
        classifier.queue.copy_(means[number % len(means)])
        classifier.update_fixed_center()

    return call


def their_renewal(given: tuple[list[Tensor], Tensor]) -> Call:
    means, prototypes = given
    solve, columns = imported("scipy.optimize").linear_sum_assignment, prototypes.T.contiguous()

    def call(number: int) -> Tensor:
        scores = means[number % len(means)] @ columns
        found = solve(scores.cpu().numpy(), maximize=True)[1]
        return torch.stack([columns[:, column] for column in found.tolist()], dim=1)

    return call


def sizes(*shapes: tuple[int, int], batch: int | None = None) -> list[Size]:
    return [{"C": c, "D": d} | ({} if batch is None else {"B": batch}) for c, d in shapes]


SHAPES = ((100, 50), (1_000, 64), (10_000, 128))
DL2PA_STEP = Comparison(
    op="dl2pa_step",
    sizes={"smoke": sizes((200, 16), batch=64), **{s: sizes(*SHAPES, batch=128) for s in ("small", "full")}},
    inputs=inputs_of_step,
    providers={"fastproto": Provider(our_step), "authors' formulas": Provider(their_step)},
    work=lambda size: Work(flops=2.0 * size["B"] * size["C"] * size["D"], bytes=4.0 * size["C"] * size["D"]),
    serial_part="the rows of the batch are walked in one thread: the class means depend on their order",
)
DL2PA_RENEWAL = Comparison(
    op="dl2pa_renewal",
    sizes={"smoke": sizes((200, 16)), **{s: sizes(*SHAPES) for s in ("small", "full")}},
    inputs=inputs_of_renewal,
    providers={
        "fastproto": Provider(our_renewal),
        "authors' formulas": Provider(their_renewal, small=1_000, serial=True, warm=True),
    },
    serial_part=SEQUENTIAL,
)


@compared(DL2PA_STEP)
def test_dl2pa_step(case: Case, row: Row) -> None:
    row(case)


@compared(DL2PA_RENEWAL)
def test_dl2pa_renewal(case: Case, row: Row) -> None:
    row(case)
