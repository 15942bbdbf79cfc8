"""What is given is used as it is, or refused by name: shares, weights, numbers, dtypes, shared memory, no samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

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
    update_class_means_,
)
from fastproto.assignment import align
from fastproto.backend import use_backend
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

from ..helpers import unit_rows

HEADS: dict[str, Callable[..., Any]] = {
    "prototype": lambda c, d, **k: PrototypeHead(c, d, prototypes=unit_rows(c, d), **k),
    "official": lambda c, d, **k: PrototypeHead(
        c, d, prototypes=unit_rows(c, d), means="official", loss="official", **k
    ),
    "trained": lambda *a, **k: TrainedPrototypesHead(*a, weights=unit_rows(10, 4), **k),
    "softmax": SoftmaxHead,
    "linear": LinearHead,
    "fixed_softmax": lambda c, d, **k: FixedSoftmaxHead(c, d, prototypes=unit_rows(c, d), **k),
    "hpn": lambda c, d, **k: HPNHead(c, d, prototypes=unit_rows(c, d), **k),
    "etf": lambda c, d, **k: ETFHead(5, d, **k),
}


def head(**options: Any) -> PrototypeHead:
    return PrototypeHead(10, 4, prototypes=unit_rows(10, 4), **options)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(8, 4), torch.randint(0, 5, (8,)), torch.randint(0, 5, (8,))


@pytest.mark.parametrize("name", HEADS)
def test_shares_of_every_form(name: str) -> None:
    made = HEADS[name](10, 4, reduction="none")
    x, a, b = batch()
    one, two = made(x, a, update_means=False), made(x, b, update_means=False)
    lam = torch.tensor([0.0, 1.0, 0.5, 0.25, 0.75, 0.1, 0.9, 0.3])
    right = lam * one + (1 - lam) * two
    for given in (lam, lam[:, None], lam.double(), lam[:, None].double(), lam.clone().requires_grad_()):
        loss = made(x, a, labels2=b, lam=given, update_means=False)
        torch.testing.assert_close(loss, right)
    for number in (0.25, np.float32(0.25), torch.tensor(0.25), torch.tensor([0.25]), torch.tensor(0.25).double()):
        loss = made(x, a, labels2=b, lam=number, update_means=False)
        torch.testing.assert_close(loss, 0.25 * one + 0.75 * two)
    torch.testing.assert_close(made(x, a, labels2=b, lam=1, update_means=False), one)
    torch.testing.assert_close(made(x, a, labels2=b, lam=torch.ones(8, dtype=torch.int64), update_means=False), one)
    torch.testing.assert_close(made(x[:1], a[:1], labels2=b[:1], lam=lam[2:3, None], update_means=False), right[:1] * 0
                               + 0.5 * one[:1] + 0.5 * two[:1])  # fmt: skip


BAD_SHARES: list[Any] = [
    math.nan, 1.5, -0.1, math.inf, 1j, "0.5", [0.5] * 8, True,
    torch.rand(1, 8), torch.rand(8, 2), torch.rand(7), torch.rand(8, 1, 1), torch.rand(1, 1),
    torch.full((8,), 1.5), torch.full((8,), math.nan), torch.full((8, 1), -0.5), torch.tensor(math.nan),
    torch.ones(8, dtype=torch.bool), torch.ones(8, dtype=torch.complex64), torch.full((8,), 2),
]  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("training", [True, False])
def test_bad_shares_are_refused_by_name(name: str, training: bool) -> None:
    made = HEADS[name](10, 4).train(training)
    x, a, b = batch()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    for shares in ([0.5] * 8, torch.rand(8).numpy()):
        with pytest.raises(TypeError, match=r"^lam is a (list|ndarray); .* pass torch.as_tensor\(lam\)"):
            made(x, a, labels2=b, lam=shares)
    for lam in BAD_SHARES:
        with pytest.raises((TypeError, ValueError), match=r"^lam "):
            made(x, a, labels2=b, lam=lam)
    with pytest.raises((TypeError, ValueError), match="labels2"):
        made(x, a, labels2=b + 10, lam=0.5)
    with pytest.raises((TypeError, ValueError), match="labels2"):
        made(x, a, labels2=b.float(), lam=0.5)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_a_bad_share_in_a_compiled_step_is_said_later() -> None:
    made, (x, a, b) = head(), batch()
    lam = torch.tensor([0.5, math.nan, 0.5, 2.0, 0.5, 0.5, 0.5, 0.5])
    step = torch.compile(lambda lam: made(x, a, labels2=b, lam=lam), backend="aot_eager", fullgraph=True)
    good = torch.tensor([0, 2, 4, 5, 6, 7])
    expected = made(x[good], a[good], labels2=b[good], lam=0.5, update_means=False) * 6 / 8
    torch.testing.assert_close(step(lam), expected)
    with pytest.raises(ValueError, match="lam with NaN"):
        made.check_batches()
    step(lam.nan_to_num().clamp(0, 1))
    made.check_batches()


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
         "momentum": [math.nan, 1, -0.1, "x", None, 1j, True]},
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


@contextmanager
def defaults(dtype: torch.dtype | None, device: str | None) -> Iterator[None]:
    try:
        torch.set_default_dtype(dtype or torch.float32)
        # not set_default_device: torch 2.9 does not know the default any more once it is set back to None
        with torch.device(device) if device else nullcontext():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def every_result(x: Tensor, y: Tensor, w: Tensor, m: Tensor, weight: Tensor) -> dict[str, Any]:
    """Of every function, on the tensors given alone."""
    leaf, order = x.clone().requires_grad_(), torch.arange(9, -1, -1, device="cpu")
    results: dict[str, Any] = {
        "loss": ipm_loss(leaf, y, w, order, weight=weight, nan_policy="skip"),
        "official": ipm_loss(leaf, y, w, order, loss="official"),
        "means": update_class_means(m, x, y, 0.9),
        "skipped": update_class_means(m, x, y, 0.9, nan_policy="skip"),
        "nearest": nearest_prototypes(x, w, 3),
    }
    torch.autograd.backward([results["loss"], results["official"]])
    results["gradient"] = leaf.grad
    if w.dtype == x.dtype:
        rows = w.clone().requires_grad_()
        results["potential"] = gaussian_potential(w, t=3.0)
        results["uniformity"] = uniformity_loss(rows, subset=y[:3], form="eq5")
        results["sharp"] = uniformity_loss(rows, t=30.0)
        torch.autograd.backward([results["uniformity"], results["sharp"]])
        results["uniformity gradient"] = rows.grad
        results["quality"] = torch.tensor(list(vars(measure_prototypes(w)).values()), dtype=torch.float64, device="cpu")
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in results.items()}


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_same(found[key], value, f"{name} {key}")
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, name)
    else:
        assert found.dtype == expected.dtype and found.device == expected.device, name
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_defaults_of_torch_change_nothing(backend: str, dtype: torch.dtype) -> None:
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    given = (
        torch.randn(6, 4).to(dtype), torch.tensor([3, 0, 9, 1, 2, 4]), unit_rows(10, 4, wide),
        torch.randn(10, 4).to(wide), torch.rand(6).to(dtype),
    )  # fmt: skip
    with use_backend(backend):
        expected = every_result(*given)
        for kind, device in ((torch.float64, None), (torch.float16, None), (torch.bfloat16, None), (None, "meta")):
            with defaults(kind, device):
                found = every_result(*given)
            assert_same(found, expected)
    if dtype == torch.float64:
        flat = [x for value in expected.values() for x in (value if isinstance(value, tuple) else (value,))]
        assert all(x.dtype in (torch.float64, torch.int64) for x in flat)
        x, y, w, m, weight = given
        exact = reference.ipm_loss(x, y, w, torch.arange(9, -1, -1), weight).mean()
        assert abs(float(expected["loss"] - exact)) < 1e-15  # and not of a factor 1/6 in float32
        torch.testing.assert_close(expected["means"], reference.update_class_means(m, x, y, 0.9), atol=1e-15, rtol=0)


def test_prototypes_are_made_on_the_cpu_whatever_the_defaults_are() -> None:
    sizes = [(4, 5), (10, 2), (10, 5), (7, 4), (12, 3), (20, 4)]
    expected = [estimate_prototypes(c, d, cache=False, max_passes=20) for c, d in sizes]
    for kind, device in ((torch.float64, None), (torch.float16, None), (None, "meta")):
        with defaults(kind, device):
            found = [estimate_prototypes(c, d, cache=False, max_passes=20) for c, d in sizes]
            assert all(torch.equal(a.vectors, b.vectors) for a, b in zip(found, expected, strict=True))
            assert found[4].quality == expected[4].quality
            assert binary_code(20, 8).device.type == "cpu"


def test_semantic_prototypes_are_float32_whatever_the_default_is() -> None:
    given = unit_rows(5, 3)
    expected = semantic_prototypes(given, 3, steps=3)
    for kind in (torch.float64, torch.bfloat16):
        with defaults(kind, None):
            assert_same(semantic_prototypes(given, 3, steps=3), expected)


@pytest.mark.parametrize("name", HEADS)
def test_float64_features_give_float64(name: str) -> None:
    made = HEADS[name](10, 4)
    x, a, b = batch()
    x, weight = x.double().requires_grad_(), torch.rand(8)
    loss = made(x, a, weight, labels2=b, lam=torch.rand(8))
    loss.backward()
    labels, cosines = made.predict_with_cosines(x.detach(), 2)
    assert loss.dtype == cosines.dtype == made.logits(x).dtype == torch.float64 and labels.dtype == torch.int64
    assert x.grad is not None and x.grad.dtype == torch.float64
    single = made(x.detach().float(), a, weight.double(), labels2=b, lam=torch.rand(8).double())
    assert single.dtype == torch.float32


def test_official_means_of_float64_features() -> None:
    made = head(means="official")
    x = torch.randn(4, 4, dtype=torch.float64) * 1e60  # more than float32 holds
    before = made.class_means.double()
    made(x, torch.tensor([1, 2, 1, 3]))
    expected = reference.update_official_means(before, x, torch.tensor([1, 2, 1, 3]))
    torch.testing.assert_close(made.class_means.double(), expected, atol=1e-7, rtol=0)


def test_features_too_large_to_be_squared() -> None:
    x, y = torch.full((3, 4), 1e30), torch.arange(3)
    for made in (head(), HEADS["fixed_softmax"](10, 4), SoftmaxHead(10, 4)):
        with pytest.raises(ValueError, match="too large to be squared"):
            made(x, y)
        with pytest.raises(ValueError, match="too large to be squared"):
            made.predict(x)
        assert made.logits(x).isnan().all()  # no label is better than another
        torch.testing.assert_close(made.logits(x.double()), made.logits(torch.ones(3, 4, dtype=torch.float64)))


@pytest.mark.parametrize("backend", ["numba", "torch", "triton"])
def test_means_that_share_memory(backend: str) -> None:
    y = torch.tensor([3, 0, 0, 5, 1, 2])
    with use_backend(backend):
        for part in (slice(None), slice(1, 4)):
            means = torch.randn(6, 4)
            labels = y[part]
            expected = reference.update_class_means(means, means[part].clone(), labels, 0.9)
            update_class_means_(means, means[part], labels, 0.9)
            torch.testing.assert_close(means, expected)
        turned = torch.randn(4, 4)
        expected = reference.update_class_means(turned, turned.T.clone(), y[:4] % 4, 0.9)
        update_class_means_(turned, turned.T, y[:4] % 4, 0.9)
        torch.testing.assert_close(turned, expected)
        within = torch.zeros(6, 4)
        labels = within.view(-1).view(torch.int64)[:3]
        labels.copy_(torch.tensor([0, 1, 0]))
        x = torch.randn(3, 4)
        expected = reference.update_class_means(within, x, labels.clone(), 0.9)
        update_class_means_(within, x, labels, 0.9)
        torch.testing.assert_close(within, expected)
        made = PrototypeHead(6, 4, prototypes=unit_rows(6, 4))
        made.class_means.normal_()
        expected = reference.update_class_means(made.class_means, made.class_means.clone(), y, 0.9)
        made(made.class_means, y)
        torch.testing.assert_close(made.class_means, expected)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (lambda: torch.zeros(1, 4).expand(6, 4), "share"),
        (lambda: torch.zeros(6, 1).expand(6, 4), "share"),
        (lambda: torch.zeros(1, 1).expand(1, 4), "share"),
        (lambda: torch.zeros(40).as_strided((6, 4), (2, 1)), "share"),
        (lambda: torch.zeros(6, 4, requires_grad=True), "require grad"),
        (lambda: made_in_inference(), "inference mode"),
    ],
)
def test_means_that_cannot_be_written_to(means: Callable[[], Tensor], message: str) -> None:
    for backend in ("auto", "torch"):
        with use_backend(backend), pytest.raises(ValueError, match=message):
            update_class_means_(means(), torch.randn(2, 4), torch.tensor([0, 0]), 0.9)


def made_in_inference() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(6, 4)


def test_means_in_inference_mode_and_with_strides() -> None:
    x, y = torch.randn(3, 4), torch.tensor([0, 1, 0])
    expected = reference.update_class_means(torch.zeros(6, 4), x, y, 0.9)
    with torch.inference_mode():
        means = torch.zeros(6, 4)
        update_class_means_(means, x, y, 0.9)
    torch.testing.assert_close(means.clone(), expected)
    strided = torch.zeros(4, 6).T
    update_class_means_(strided, x, y, 0.9)
    torch.testing.assert_close(strided, expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_means_saved_for_backward_are_missed(backend: str) -> None:
    means, x = torch.randn(6, 4), torch.randn(3, 4, requires_grad=True)
    with use_backend(backend):
        similarity = (x @ means.T).sum()
        update_class_means_(means, x, torch.tensor([0, 1, 1]), 0.9)
        with pytest.raises(RuntimeError, match="inplace"):
            similarity.backward()


def test_a_state_that_holds_one_tensor_twice() -> None:
    w = unit_rows(10, 4)
    state = head().state_dict() | {"prototypes": w, "class_means": w}
    for given in (state, state | {"class_means": torch.zeros(1, 4).expand(10, 4)}):
        made = head()
        made.load_state_dict(given, assign=True)
        before = made.class_means.clone()
        x, y = torch.randn(5, 4), torch.tensor([0, 1, 1, 2, 9])
        made(x, y)
        assert torch.equal(made.prototypes, w)
        torch.testing.assert_close(made.class_means, reference.update_class_means(before, x, y, 0.9))


@pytest.mark.parametrize("backend", ["auto", "torch", "numba", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_no_samples(backend: str, dtype: torch.dtype) -> None:
    if dtype == torch.float64 and backend in ("numba", "triton"):
        backend = "auto"
    y, w = torch.zeros(0, dtype=torch.int64), unit_rows(10, 4)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    mixtures: list[dict[str, Any]] = [{}, {"weight": torch.zeros(0)}, {"weight": torch.zeros(0, requires_grad=True)}]
    mixtures += [{"labels2": y, "lam": lam} for lam in (0.3, torch.tensor(0.3), torch.zeros(0), torch.zeros(0, 1))]

    def check(loss: Callable[..., Tensor], reduction: str, **given: Any) -> None:
        x = torch.zeros(0, 4, dtype=dtype, requires_grad=True)
        value = loss(x, y, **given)
        value.sum().backward()
        assert value.dtype == expected and value.shape == ((0,) if reduction == "none" else ())
        assert float(value.detach().sum()) == 0
        assert x.grad is not None and x.grad.shape == (0, 4) and x.grad.dtype == dtype

    with use_backend(backend):
        for reduction in ("mean", "sum", "none"):
            for policy in ("raise", "skip"):
                options: dict[str, Any] = {"reduction": reduction, "nan_policy": policy}
                check(lambda x, y, o=options, **k: ipm_loss(x, y, w, torch.randperm(10), **o, **k), reduction)
                for means in ("ema", "official"):
                    made = PrototypeHead(10, 4, prototypes=w, means=means, **options)
                    before = made.class_means.clone()
                    for given in mixtures:
                        check(made, reduction, **given)
                    assert torch.equal(made.class_means, before) and int(made.updates) == 0
            for make in HEADS.values():
                for given in mixtures:
                    check(make(10, 4, reduction=reduction), reduction, **given)
        x = torch.zeros(0, 4, dtype=dtype)
        for make in HEADS.values():
            made = make(10, 4)
            labels, cosines = made.predict_with_cosines(x, 3)
            assert labels.shape == cosines.shape == (0, 3) and labels.dtype == torch.int64
            assert cosines.dtype == made.logits(x).dtype == expected
            assert made.logits(x).shape == (0, made.num_classes)
        stay = torch.randn(10, 4)
        assert torch.equal(update_class_means(stay, x, y, 0.9, nan_policy="skip"), stay)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_samples_in_a_compiled_step(dtype: torch.dtype) -> None:
    y, net, made = torch.zeros(0, dtype=torch.int64), torch.nn.Linear(3, 4, dtype=dtype), head()
    step = torch.compile(lambda x, y, **k: made(net(x), y, **k), backend="aot_eager", fullgraph=True)
    for given in ({}, {"labels2": y, "lam": torch.zeros(0)}):
        loss = step(torch.zeros(0, 3, dtype=dtype), y, **given)
        loss.backward()
        assert float(loss.detach()) == 0 and net.weight.grad is not None and net.weight.grad.eq(0).all()
    assert int(made.updates) == 0 and made.class_means.eq(0).all()
    x, a = torch.randn(5, 3, dtype=dtype), torch.arange(5)
    torch.testing.assert_close(step(x, a), made.eval()(net(x), a))
