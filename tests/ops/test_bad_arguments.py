"""What cannot be used is refused by name, in every function and head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from fastproto import (
    PrototypeHead,
    estimate_prototypes,
    gaussian_potential,
    ipm_loss,
    measure_prototypes,
    nearest_prototypes,
    reference,
    uniformity_loss,
    update_class_means,
)
from fastproto.assignment import align
from fastproto.baselines import (
    ETFHead,
    FixedSoftmaxHead,
    HPNHead,
    LinearHead,
    SoftmaxHead,
    SoftmaxUniformHead,
    TrainedPrototypesHead,
    semantic_prototypes,
)
from fastproto.prototypes import binary_code, closed_form, code_capacity, max_cosine_bound, uniformity_bound

from ..every_head import HEADS, head
from ..helpers import unit_rows

MATRICES: list[Any] = [
    torch.randn(10, 4, dtype=torch.complex64), torch.ones(10, 4, dtype=torch.int64),
    torch.ones(10, 4, dtype=torch.bool), torch.ones(10, 4).to(torch.float8_e4m3fn), torch.eye(10, 4).to_sparse(),
    [[1.0] * 4] * 10, np.ones((10, 4)), None, "x", torch.randn(4), torch.randn(10, 4, 1), torch.randn(10, 0),
]  # fmt: skip


LABELS: list[Any] = [
    torch.zeros(10, dtype=torch.int32), torch.zeros(10, dtype=torch.uint8), torch.zeros(10), [0] * 10, None,
    torch.zeros(10, dtype=torch.bool), torch.zeros(10, dtype=torch.complex64), np.zeros(10, int),
    torch.zeros(10, 1, dtype=torch.int64), torch.tensor(0), torch.zeros(9, dtype=torch.int64),
    torch.full((10,), -1), torch.full((10,), 10), torch.full((10,), -100),
]  # fmt: skip


WEIGHTS: list[Any] = [
    torch.rand(10, 1), torch.rand(1, 10), torch.tensor(0.5), torch.rand(9), torch.ones(10, dtype=torch.int64),
    torch.ones(10, dtype=torch.bool), torch.ones(10, dtype=torch.complex64), torch.full((10,), math.nan),
    torch.full((10,), math.inf), [0.5] * 10, np.ones(10), 0.5,
]  # fmt: skip


def functions() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], dict[str, list[Any]]]]:
    w, m, x, y = unit_rows(10, 4), torch.randn(10, 4), torch.randn(10, 4), torch.arange(10)
    yield (
        "ipm_loss", ipm_loss, {"features": x, "labels": y, "prototypes": w, "assignment": y},
        {"features": MATRICES, "labels": LABELS, "prototypes": MATRICES, "assignment": LABELS, "weight": WEIGHTS},
    )  # fmt: skip
    yield (
        "update_class_means", update_class_means, {"means": m, "features": x, "labels": y, "momentum": 0.9},
        {"means": [a for a in MATRICES if hasattr(a, "clone")], "features": MATRICES, "labels": LABELS,
         "momentum": [math.nan, 1, 10**400, -0.1, "x", None, 1j, True]},
    )  # fmt: skip
    yield (
        "nearest",
        nearest_prototypes,
        {"features": x, "prototypes": w},
        {"features": MATRICES, "prototypes": MATRICES},
    )
    yield (
        "potential", gaussian_potential, {"points": w, "others": w},
        {"points": MATRICES, "others": [a for a in MATRICES if a is not None], "weights": WEIGHTS},
    )  # fmt: skip
    yield (
        "uniformity",
        uniformity_loss,
        {"prototypes": w},
        {"prototypes": MATRICES, "subset": LABELS[:3] + LABELS[11:13]},
    )
    yield "measure", measure_prototypes, {"vectors": w}, {"vectors": MATRICES}
    yield "align", align, {"class_means": m, "prototypes": w}, {"class_means": MATRICES, "prototypes": MATRICES}
    for name, make in HEADS.items():
        if name == "etf":
            continue
        made = make(10, 4)
        given = {"features": x, "labels": y}
        yield name, made, given, {"features": MATRICES, "labels": LABELS, "weight": WEIGHTS}
        yield f"{name}.predict", made.predict, {"features": x}, {"features": MATRICES}
        yield f"{name}.logits", made.logits, {"features": x}, {"features": MATRICES}
    yield "trained", partial_head(TrainedPrototypesHead), {}, {"weights": MATRICES}
    yield "hpn", partial_head(HPNHead), {}, {"word_vectors": [a for a in MATRICES if a is not None][:-1]}


def partial_head(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **given: kind(10, 4, **given)


def test_tensors_that_cannot_be_used_are_refused_by_name() -> None:
    for name, function, good, bad in functions():
        for argument, values in bad.items():
            for value in values:
                with pytest.raises((TypeError, ValueError)) as caught:
                    function(**{**good, argument: value})
                message = str(caught.value)
                named = argument in message or (argument == "assignment" and "rows" in message)
                assert named and "expected" in message, (name, argument, value, message)


WHOLE: list[Any] = [10.0, np.int32(10), np.float32(10), np.uint8(10), torch.tensor(10), Fraction(10)]


BROKEN: list[Any] = [10.5, math.nan, math.inf, True, "10", None, 10j, [10], -10]


@pytest.mark.parametrize(
    ("function", "argument", "result"),
    [
        (lambda n: estimate_prototypes(n, 9, cache=False).vectors, "num_classes", lambda r: len(r) == 10),
        (lambda n: estimate_prototypes(5, n, cache=False).vectors, "dim", lambda r: r.shape == (5, 10)),
        (lambda n: estimate_prototypes(12, 4, method="sgd", iterations=n, cache=False).passes, "iterations",
         lambda r: r == 10),
        (lambda n: estimate_prototypes(12, 4, method="sgd", iterations=2, subset_size=n, cache=False).passes,
         "subset_size", lambda r: r == 2),
        (lambda n: estimate_prototypes(13, 4, max_passes=n, cache=False).passes, "max_passes", lambda r: r >= 1),
        (lambda n: PrototypeHead(n, 9).num_classes, "num_classes", lambda r: type(r) is int),
        (lambda n: PrototypeHead(5, n).dim, "dim", lambda r: type(r) is int),
        (lambda n: SoftmaxHead(n, 4).weight, "num_classes", lambda r: len(r) == 10),
        (lambda n: LinearHead(4, n).linear, "dim", lambda r: r.in_features == 10),
        (lambda n: ETFHead(3, n).dim, "dim", lambda r: r == 10),
        (lambda n: FixedSoftmaxHead(n, 9).num_classes, "num_classes", lambda r: r == 10),
        (lambda n: HPNHead(n, 9).num_classes, "num_classes", lambda r: r == 10),
        (lambda n: semantic_prototypes(unit_rows(4, 3), n, steps=2), "dim", lambda r: r.shape == (4, 10)),
        (lambda n: semantic_prototypes(unit_rows(4, 3), 3, steps=n), "steps", lambda r: r.shape == (4, 3)),
        (lambda n: nearest_prototypes(torch.randn(3, 4), unit_rows(12, 4), n)[1], "k", lambda r: r.shape == (3, 10)),
        (lambda n: head().predict(torch.randn(3, 4), n), "k", lambda r: r.shape == (3, 10)),
        (lambda n: LinearHead(12, 4).predict(torch.randn(3, 4), n), "k", lambda r: r.shape == (3, 10)),
        (lambda n: align(torch.randn(6, 3), unit_rows(6, 3), starts=n).objectives, "starts", lambda r: len(r) == 10),
        (lambda n: binary_code(n, 8), "num_classes", lambda r: len(r) == 10),
        (lambda n: closed_form(n, 9), "num_classes", lambda r: r[1] == "simplex"),
        (lambda n: uniformity_bound(n, 4), "num_classes", lambda r: r == uniformity_bound(10, 4)),
        (lambda n: max_cosine_bound(20, n), "dim", lambda r: r == max_cosine_bound(20, 10)),
    ],
)  # fmt: skip
def test_whole_numbers(function: Callable[[Any], Any], argument: str, result: Callable[[Any], bool]) -> None:
    for number in WHOLE:
        assert result(function(number)), number
    for number in BROKEN:
        if number is None and argument in ("subset_size", "max_passes"):
            continue
        with pytest.raises((TypeError, ValueError), match=argument):
            function(number)
    assert code_capacity(0) == 0 == code_capacity(-8)


def test_seeds() -> None:
    same = [PrototypeHead(10, 4, prototypes=unit_rows(10, 4), seed=seed) for seed in (10, 10.0, np.int64(10))]
    assert all(torch.equal(one.assignment, same[0].assignment) for one in same)
    for seed in (0.5, math.nan, "1", None, 2**70, True):
        for make in (PrototypeHead, FixedSoftmaxHead, HPNHead, partial_seed):
            with pytest.raises((TypeError, ValueError), match="seed"):
                make(10, 4, seed=seed)


def partial_seed(c: int, d: int, seed: Any) -> Any:
    return align(torch.randn(c, d), unit_rows(c, d), seed=seed)


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (lambda t: gaussian_potential(unit_rows(5, 3), t=t), "t"),
        (lambda t: uniformity_loss(unit_rows(5, 3), t=t), "t"),
        (lambda t: measure_prototypes(unit_rows(5, 3), t), "t"),
        (lambda t: estimate_prototypes(5, 3, t=t, cache=False), "t"),
        (lambda t: uniformity_bound(5, 3, t), "t"),
        (lambda t: closed_form(5, 3, t=t), "t"),
        (lambda t: SoftmaxUniformHead(5, 3, t=t), "t"),
        (lambda t: SoftmaxHead(5, 3, scale=t), "scale"),
        (lambda t: ETFHead(4, 3, energy=t), "energy"),
        (lambda t: estimate_prototypes(5, 3, method="sgd", lr=t, iterations=1, cache=False), "lr"),
        (lambda t: semantic_prototypes(unit_rows(4, 3), 3, steps=1, lr=t), "lr"),
    ],
)
def test_positive_numbers(function: Callable[[Any], Any], argument: str) -> None:
    for number in (2, 2.0, np.float32(2), torch.tensor(2.0), Fraction(2)):
        function(number)
    for number in (math.nan, math.inf, -math.inf, 0, -1.0, "2", 2j, True, None, [2.0], torch.ones(2)):
        with pytest.raises((TypeError, ValueError), match=rf"\b{argument}\b"):
            function(number)


@pytest.mark.parametrize("momentum", [np.float32(0.5), torch.tensor(0.5), Fraction(1, 2)])
def test_momentum_is_any_number(momentum: Any) -> None:
    x, y = torch.randn(4, 4), torch.tensor([1, 1, 2, 1])
    made = head(momentum=momentum)
    made(x, y)
    torch.testing.assert_close(made.class_means, reference.update_class_means(torch.zeros(10, 4), x, y, 0.5))
    torch.testing.assert_close(update_class_means(torch.zeros(10, 4), x, y, momentum), made.class_means)
