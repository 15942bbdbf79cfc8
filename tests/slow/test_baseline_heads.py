"""Every method of the baselines on thousands of batches, against plain float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto import baselines, reference

from .exploring import cosine_error, explore, reduced, refused, same, twice, within
from .inputs import DTYPES, LAYOUTS, bad_floats, bad_labels, features_of, laid_out, made, shapes, unit

pytestmark = pytest.mark.slow


def cosines_with(head: nn.Module, x: Tensor) -> Tensor:
    return F.normalize(x.double(), dim=1) @ F.normalize(head.weight_by_label().double(), dim=1).T


def softmax_loss(head: Any, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(head.scale * cosines_with(head, x), y, reduction="none")


def distance(factor: Callable[[Any], float]) -> Callable[[Any, Tensor, Tensor], Tensor]:
    return lambda head, x, y: factor(head) * (cosines_with(head, x).gather(1, y[:, None]).squeeze(1) - 1) ** 2


def linear_loss(head: Any, x: Tensor, y: Tensor) -> Tensor:
    logits = x.double() @ head.linear.weight.double().T + head.linear.bias.double()
    return F.cross_entropy(logits, y, reduction="none")


def uniform_part(head: Any) -> Tensor:
    return head.uniformity_weight * reference.uniformity_loss(head.weight.double(), head.t)


HEADS: dict[str, tuple[Callable[..., Any], Callable[[Any, Tensor, Tensor], Tensor]]] = {
    "ETFHead": (lambda w, seed: baselines.ETFHead(*w.shape, energy=1.5, seed=seed), distance(lambda h: h.energy / 2)),
    "FixedSoftmaxHead": (
        lambda w, seed: baselines.FixedSoftmaxHead(*w.shape, prototypes=w, scale=8.0, seed=seed),
        softmax_loss,
    ),
    "HPNHead": (lambda w, seed: baselines.HPNHead(*w.shape, prototypes=w, seed=seed), distance(lambda _: 1.0)),
    "LinearHead": (lambda w, seed: baselines.LinearHead(*w.shape), linear_loss),
    "SoftmaxHead": (lambda w, seed: baselines.SoftmaxHead(*w.shape, scale=4.0), softmax_loss),
    "SoftmaxUniformHead": (
        lambda w, seed: baselines.SoftmaxUniformHead(*w.shape, uniformity_weight=0.5, scale=4.0),
        softmax_loss,
    ),
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, str, int]:
    b, c, d = draw(shapes(classes=20))
    c = min(c, d + 1)  # a simplex has no more
    generator = torch.Generator().manual_seed(seed := draw(st.integers(0, 2**32)))
    w, dtype = unit(c, d, generator), draw(st.sampled_from(DTYPES))
    x = laid_out(
        features_of(b, d, dtype, draw(st.integers(-1, 1)), w, generator, tiny=False), draw(st.sampled_from(LAYOUTS))
    )
    return x, torch.randint(0, c, (b,), generator=generator), w, draw(st.sampled_from(["mean", "sum", "none"])), seed


@pytest.mark.parametrize("name", HEADS)
def test_baselines(name: str) -> None:
    make, sample_losses = HEADS[name]

    def check(given: tuple[Tensor, Tensor, Tensor, str, int]) -> None:
        x, y, w, reduction, seed = given
        torch.manual_seed(seed)
        head = make(w, seed)
        head.reduction = reduction
        truth = sample_losses(head, x, y)
        extra = uniform_part(head) if name == "SoftmaxUniformHead" else 0.0
        scale = float(x.double().norm(dim=1).max()) if name == "LinearHead" and len(x) else head.scale
        error = 16 * cosine_error(x.shape[1], torch.float32) * (1 + scale)
        if name == "LinearHead" and x.dtype == torch.float64:
            error *= 2
        found = twice(head, x, y)
        within(found, reduced(truth, reduction) + extra, error * max(1, len(y)))
        k = 1 + seed % len(w)
        labels, cosines = twice(head.predict_with_cosines, x, k)
        assert same(labels, head.predict(x, k)) and labels.shape == (len(x), k)
        near = cosines_with(head, x)
        within(cosines, near.gather(1, labels), error)
        ranked = head.logits(x).detach().double() if name == "LinearHead" else near
        within(ranked.gather(1, labels), ranked.sort(1, descending=True).values[:, :k], error)
        if name != "LinearHead":
            within(twice(head.logits, x), head.scale * near, error)
        assert same(twice(head.weight_by_label), head.weight_by_label())

    explore(name, batches(), check)


@pytest.mark.parametrize("name", HEADS)
def test_baselines_refuse(name: str) -> None:
    make, _ = HEADS[name]

    def check(given: tuple[tuple[Tensor, Tensor, Tensor, str, int], int]) -> None:
        (x, y, w, _, seed), pick = given
        head = make(w, seed)
        generator = torch.Generator().manual_seed(seed)
        wrong: list[list[Any]] = [[value, y] for value in bad_floats(x, generator)]
        wrong += [[x, value] for value in bad_labels(y, len(w))] + [[x, y, torch.ones(len(y) + 1)]]
        refused(head, *map(made, wrong[pick % len(wrong)]))

    explore(f"{name}, bad inputs", st.tuples(batches(), st.integers(0, 10_000)), check)
