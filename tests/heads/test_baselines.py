"""The heads that ours is compared with, against plain float64 formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto import PrototypeHead
from fastproto.baselines import (
    CosineHead,
    ETFHead,
    FixedHead,
    FixedSoftmaxHead,
    HPNHead,
    LinearHead,
    SoftmaxHead,
    SoftmaxUniformHead,
    TrainedPrototypesHead,
    semantic_prototypes,
)
from fastproto.head import exclude_from_broadcast

from ..helpers import assert_as_accurate_as, unit_rows

C, D = 6, 5
Head = PrototypeHead | CosineHead


WORDS = torch.randn(C, 20, generator=torch.Generator().manual_seed(3))

MAKERS: dict[str, Callable[..., Head]] = {
    "softmax": lambda **o: SoftmaxHead(C, D, scale=8.0, **o),
    "softmax_uniform": lambda **o: SoftmaxUniformHead(C, D, scale=8.0, uniformity_weight=0.3, **o),
    "linear": lambda **o: LinearHead(C, D, **o),
    "etf": lambda **o: ETFHead(C, D, energy=3.0, **o),
    "hpn": lambda **o: HPNHead(C, D, **o),
    "fixed": lambda **o: FixedHead(C, D, **o),
    "fixed_softmax": lambda **o: FixedSoftmaxHead(C, D, scale=8.0, **o),
    "fixed_softmax_norm": lambda **o: FixedSoftmaxHead(C, D, scale="norm", **o),
    "trained": lambda **o: TrainedPrototypesHead(C, D, weights=WORDS[:, :D], **o),
}
heads = pytest.mark.parametrize("name", MAKERS)


def formula(name: str, head: Head, x: Tensor, y: Tensor) -> Tensor:
    """The loss of each sample, written out in the dtype of x."""
    v = head.weight_by_label().to(x.dtype)
    cosines = (x / x.norm(dim=1, keepdim=True)) @ (v / v.norm(dim=1, keepdim=True)).T
    rows = torch.arange(len(y))
    own: Tensor = cosines[rows, y]
    logits = x @ v.T + head.linear.bias.to(x.dtype) if isinstance(head, LinearHead) else 8 * cosines
    logits = x @ v.T if name == "fixed_softmax_norm" else logits
    if "softmax" in name or name == "linear":
        entropy: Tensor = logits.exp().sum(1).log() - logits[rows, y]
        return entropy
    return {"etf": 1.5, "hpn": 1.0, "fixed": 0.5, "trained": 0.5}[name] * (own - 1) ** 2


def regulariser(name: str, head: Head, dtype: torch.dtype) -> Tensor:
    if name != "softmax_uniform":
        return torch.zeros((), dtype=dtype)
    v = head.weight_by_label().to(dtype)
    return 0.3 * torch.pdist(v / v.norm(dim=1, keepdim=True)).square().mul(-2).exp().mean().log()


def gradients(loss: Tensor, head: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [x, *head.parameters()]))


@heads
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_value_and_gradient(name: str, reduction: str) -> None:
    head = MAKERS[name](reduction=reduction)
    x, y, weight = torch.randn(9, D), torch.randint(0, C, (9,)), torch.rand(9)
    cotangent = torch.rand(9) if reduction == "none" else torch.tensor(1.7)

    def outcome(dtype: torch.dtype, ours: bool) -> list[Tensor]:
        leaf = x.to(dtype).requires_grad_()
        if ours:
            loss = head(leaf, y, weight)
        else:
            loss = formula(name, head, leaf, y) * weight.to(dtype)
            loss = {"mean": loss.mean(), "sum": loss.sum(), "none": loss}[reduction]
            loss = loss + regulariser(name, head, dtype)  # once, and not weighted
        return [loss.detach(), *gradients((loss * cotangent.to(dtype)).sum(), head, leaf)]

    triples = zip(
        outcome(torch.float32, True), outcome(torch.float32, False), outcome(torch.float64, False), strict=True
    )
    for ours, torchs, truth in triples:
        assert_as_accurate_as(ours, torchs, truth)


@heads
def test_prediction_is_the_argmax_of_the_logits(name: str) -> None:
    head, x = MAKERS[name](), torch.randn(40, D)
    values, labels = head.logits(x).topk(3, dim=1)
    assert torch.equal(head.predict(x, k=3), labels)
    assert torch.equal(head.predict(x)[:, 0], head.logits(x).argmax(1))
    found, cosines = head.predict_with_cosines(x, 3)
    rows = head.weight_by_label()[found]
    assert torch.equal(found, labels) and not cosines.requires_grad
    torch.testing.assert_close(cosines, F.cosine_similarity(x[:, None], rows, dim=2).detach())
    if name in ("softmax", "softmax_uniform", "fixed_softmax"):
        torch.testing.assert_close(values.detach(), 8 * cosines)


@heads
def test_mixup_and_an_empty_batch(name: str) -> None:
    head = MAKERS[name]()
    x, y1, y2, lam = torch.randn(7, D), torch.randint(0, C, (7,)), torch.randint(0, C, (7,)), torch.rand(7)
    one, two = (formula(name, head, x, y) for y in (y1, y2))
    extra = regulariser(name, head, torch.float32)
    torch.testing.assert_close(head(x, y1, labels2=y2, lam=lam), (lam * one + (1 - lam) * two).mean() + extra)
    loss = head(x, y1, labels2=y2, lam=0.25, update_means=False)
    torch.testing.assert_close(loss, (0.25 * one + 0.75 * two).mean() + extra)
    with pytest.raises(ValueError, match="go together"):
        head(x, y1, labels2=y2)
    empty = torch.zeros(0, D, requires_grad=True)
    loss = head(empty, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    torch.testing.assert_close(loss, extra)
    assert empty.grad is not None and empty.grad.shape == (0, D)


@heads
def test_state_dict_round_trip(name: str) -> None:
    head = MAKERS[name]()
    torch.manual_seed(99)
    with torch.device("meta"):
        other = MAKERS[name]()
    other.load_state_dict(head.state_dict(), assign=True)
    x, y = torch.randn(5, D), torch.randint(0, C, (5,))
    assert torch.equal(other(x, y), head(x, y)) and torch.equal(other.logits(x), head.logits(x))
    again = MAKERS[name]()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.weight_by_label(), head.weight_by_label())


@heads
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    head = MAKERS[name]()
    x, y = torch.randn(8, D).to(dtype).requires_grad_(), torch.randint(0, C, (8,))
    loss = head(x, y)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.grad is not None and x.grad.dtype == dtype and bool(torch.isfinite(x.grad).all())
    truth = formula(name, head, x.double(), y).mean() + regulariser(name, head, torch.float64)
    torch.testing.assert_close(loss.double(), truth, rtol=1e-5, atol=1e-5)


@heads
def test_low_precision_modules(name: str) -> None:
    head = MAKERS[name]().bfloat16()
    assert all(buffer.dtype in (torch.float32, torch.int32, torch.int64) for buffer in head.buffers())
    assert all(parameter.dtype == torch.bfloat16 for parameter in head.parameters())
    x, y = torch.randn(8, D, dtype=torch.bfloat16), torch.randint(0, C, (8,))
    assert head(x, y).dtype == torch.float32
    assert torch.equal(head.predict(x)[:, 0], head.logits(x).argmax(1))
    with torch.autocast("cpu", torch.bfloat16):
        loss = MAKERS[name]()(torch.randn(8, D), y)
    assert loss.dtype == torch.float32


@heads
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.randn(3, D), torch.tensor([0, 1, C]), "labels run from 0 to 6"),
        (torch.randn(3, D), torch.tensor([0, -100, 2]), "labels run from -100"),
        (torch.randn(3, D), torch.tensor([0.0, 1.0, 2.0]), "int64"),
        (torch.randn(3, D), torch.tensor([0, 1]), "one number for each row"),
        (torch.randn(3, D + 1), torch.tensor([0, 1, 2]), "as wide as"),
        (torch.full((3, D), float("nan")), torch.tensor([0, 1, 2]), "NaN"),
        (torch.ones(3, D, dtype=torch.int64), torch.tensor([0, 1, 2]), "floating-point"),
    ],
)
def test_bad_batches(name: str, x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        MAKERS[name]()(x, y)


@pytest.mark.parametrize("name", ["softmax", "etf"])
def test_bad_weights(name: str) -> None:
    with pytest.raises(ValueError, match="one for each sample"):
        MAKERS[name]()(torch.randn(3, D), torch.tensor([0, 1, 2]), torch.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftmaxHead(1, 5), "at least 2"),
        (lambda: LinearHead(5, 1), "at least 2"),
        (lambda: SoftmaxHead(6, 5, scale=0.0), "scale is 0.0"),
        (lambda: SoftmaxHead(6, 5, reduction="max"), "'max'"),
        (lambda: SoftmaxUniformHead(6, 5, uniformity_weight=-1.0), "uniformity_weight is -1.0"),
        (lambda: ETFHead(7, 5), "expected dim >= 6"),
        (lambda: ETFHead(6, 5, energy=0.0), "energy is 0.0"),
        (lambda: HPNHead(6, 5, prototypes=unit_rows(6, 5), word_vectors=WORDS), "expected at most one"),
        (lambda: HPNHead(7, 5, word_vectors=WORDS), "has 6 rows; expected 7"),
        (lambda: HPNHead(6, 5, word_vectors=torch.zeros(6, 4)), "row 0 is zero"),
        (lambda: HPNHead(6, 5, prototypes=unit_rows(6, 4)), r"\[6, 4\]; expected \[6, 5\]"),
        (
            lambda: FixedSoftmaxHead(6, 5, scale="length"),
            "scale is 'length'; expected a number > 0, such as 16, or 'norm'",
        ),
        (lambda: FixedSoftmaxHead(6, 5, scale=-1), "scale is -1.0"),
        (lambda: FixedSoftmaxHead(6, 5, prototypes=2 * unit_rows(6, 5)), "norm 2"),
        (lambda: TrainedPrototypesHead(6, 5, weights=None), "weights is None"),
        (lambda: TrainedPrototypesHead(6, 5, weights=torch.zeros(6, 5)), "row 0 is zero"),
        (lambda: TrainedPrototypesHead(6, 5, weights=torch.ones(5, 5)), r"expected \[6, 5\]"),
        (lambda: semantic_prototypes(WORDS, 1), "dim is 1"),
    ],
)
def test_constructor_errors(make: Callable[[], Head], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["etf", "hpn", "fixed_softmax"])
def test_a_broken_state_is_refused(name: str) -> None:
    head = MAKERS[name]()
    before = {key: value.clone() for key, value in head.state_dict().items()}
    assert set(before) == {"prototypes", "assignment"}
    for key, value in (("prototypes", 3 * before["prototypes"]), ("assignment", torch.zeros(C, dtype=torch.int64))):
        with pytest.raises(RuntimeError, match=key):
            head.load_state_dict(before | {key: value})
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())
    model = nn.ModuleDict({"head": head})
    exclude_from_broadcast(model)
    assert model._ddp_params_and_buffers_to_ignore == {"head.prototypes", "head.assignment"}


# --- what is particular to one ---------------------------------------------------------------------------------------
