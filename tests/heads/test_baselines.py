"""The heads that ours is compared with: against plain float64 formulas, and through the trainer by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fastproto.baselines as baselines
from fastproto import PrototypeHead, estimate_prototypes
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
from fastproto.training import TrainConfig, fit
from fastproto.training.classifier import load_classifier
from fastproto.training.config import HEADS

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
        (lambda: HPNHead(6, 5, prototypes=unit_rows(6, 5), word_vectors=WORDS), "expected one"),
        (lambda: HPNHead(7, 5, word_vectors=WORDS), "has 6 rows; expected 7"),
        (lambda: HPNHead(6, 5, word_vectors=torch.zeros(6, 4)), "row 0 is zero"),
        (lambda: HPNHead(6, 5, prototypes=unit_rows(6, 4)), r"\[6, 4\]; expected \[6, 5\]"),
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


def test_etf_is_a_simplex_in_random_position() -> None:
    for c, d in ((2, 2), (6, 5), (6, 9)):
        head = ETFHead(c, d)
        gram = head.prototypes @ head.prototypes.T
        expected = torch.full((c, c), -1 / (c - 1)).fill_diagonal_(1.0)
        torch.testing.assert_close(gram, expected, atol=1e-6, rtol=0)
    assert torch.equal(ETFHead(6, 9).prototypes, head.prototypes)
    assert not torch.allclose(ETFHead(6, 9, seed=1).prototypes, head.prototypes, atol=0.1)
    x, y = torch.randn(4, 9), torch.randint(0, 6, (4,))
    h, w = 2 * F.normalize(x, dim=1), 3 * head.prototypes[y]  # E_H = 4, E_W = 9
    torch.testing.assert_close(ETFHead(6, 9, energy=6.0)(x, y), (((h * w).sum(1) - 6) ** 2 / 12).mean())


def test_fixed_heads_of_one_seed_share_prototypes_and_assignment() -> None:
    made = estimate_prototypes(C, D).vectors
    for seed in (0, 1):
        fixed, softmax = FixedHead(C, D, seed=seed), FixedSoftmaxHead(C, D, seed=seed)
        assert torch.equal(softmax.prototypes, made)
        assert torch.equal(softmax.assignment, fixed.assignment)
        assert torch.equal(softmax.weight_by_label(), fixed.weight_by_label())
    assert not torch.equal(FixedHead(C, D).assignment, fixed.assignment)


def test_hpn_prototypes() -> None:
    given = unit_rows(12, 4)
    assert torch.equal(HPNHead(12, 4, prototypes=given).weight_by_label(), given)
    made = estimate_prototypes(8, 4, objective="max_cosine").vectors
    rows = HPNHead(8, 4).weight_by_label()
    assert not torch.equal(rows, made)  # the same rows in an order of their own
    assert sorted(rows.tolist()) == sorted(made.tolist())
    assert not torch.equal(HPNHead(8, 4, seed=1).weight_by_label(), rows)


def test_semantic_prototypes_keep_the_order_of_the_words() -> None:
    # Three groups of four words; in three dimensions there is room for the groups, not for everything.
    centres = unit_rows(3, 50)
    near = centres.repeat_interleave(4, 0) + 0.05 * torch.randn(12, 50)
    w = semantic_prototypes(near, 3)
    assert w.dtype == torch.float32 and torch.equal(semantic_prototypes(near, 3), w)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(12))
    group = torch.arange(12) // 4
    same = (group[:, None] == group) & ~torch.eye(12, dtype=torch.bool)
    cosines = w @ w.T
    assert cosines[same].mean() > 0.15 > -0.15 > cosines[group[:, None] != group].mean()
    nearest = (cosines - 3 * torch.eye(12)).amax(1).mean()
    assert (
        nearest < 0.46
    )  # the icosahedron, 12 points as far apart as can be, has 0.447; groups of words have about 0.9
    assert torch.equal(HPNHead(12, 3, word_vectors=near).weight_by_label(), w)
    assert semantic_prototypes(near[:2], 2).prod(1).isfinite().all()  # two classes make no triplet


def test_trained_prototypes() -> None:
    softmax = SoftmaxHead(20, 3)
    head = TrainedPrototypesHead(20, 3, weights=5 * softmax.weight_by_label())
    torch.testing.assert_close(head.prototypes, F.normalize(softmax.weight, dim=1).detach())
    assert torch.equal(head.assignment, torch.arange(20)) and not list(head.parameters())
    head(head.prototypes[torch.randperm(20)], torch.arange(20))
    assert head.reassign().changed  # it is renewed as ours is


def test_chunked_cross_entropy_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, weight = torch.randn(70, 4), torch.randint(0, 30, (70,)), torch.rand(70)
    if not hasattr(F, "linear_cross_entropy"):
        with pytest.raises(ValueError, match="update torch"):
            SoftmaxHead(30, 4, chunked=True)
        return
    whole, pieces = SoftmaxHead(30, 4), SoftmaxHead(30, 4, chunked=True)
    pieces.load_state_dict(whole.state_dict())
    outcomes = []
    for head in (whole, pieces):
        leaf = x.clone().requires_grad_()
        loss = head(leaf, y, weight)
        outcomes.append([loss.detach(), *gradients(loss, head, leaf)])
    for a, b in zip(*outcomes, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    monkeypatch.delattr(F, "linear_cross_entropy")
    with pytest.raises(ValueError, match="update torch"):
        SoftmaxHead(30, 4, chunked=True)


# --- through the trainer ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three kinds, 8 pixels wide: a bright spot in one of three corners."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("toy")
    random = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 8)):
        for label, (row, column) in enumerate([(0, 0), (0, 5), (5, 0)]):
            (folder / part / f"kind {label}").mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
                pixels[row : row + 3, column : column + 3] += 180
                Image.fromarray(pixels).save(folder / part / f"kind {label}" / f"{index}.png")
    (folder / "words.txt").write_text("kind 0\t1 0 0 1\nkind 1\t0.9 0.1 0 1\nkind 2\t0 0 1 -1\n")
    return folder


def settings(toy: Path, out: Path, head: str, **options: Any) -> TrainConfig:
    config = TrainConfig(out=str(out), progress=False, accelerator="cpu")
    config.data.name, config.data.root, config.data.image_size, config.data.augment = "image-folder", str(toy), 8, False
    config.data.batch_size, config.model.name, config.optim.epochs = 16, "mlp", 3
    config.head.name, config.head.dim = head, 2
    for key, value in options.items():
        setattr(config.head, key, value)
    return config


def train(toy: Path, out: Path, head: str, **options: Any) -> Head:
    result = fit(settings(toy, out, head, **options))
    assert result.test_accuracy > 0.6  # chance is 0.33
    found: Head = load_classifier(result.checkpoint).head
    return found


KINDS = {
    "prototype": PrototypeHead,
    "fixed": FixedHead,
    "softmax": SoftmaxHead,
    "softmax_uniform": SoftmaxUniformHead,
    "linear": LinearHead,
    "fixed_softmax": FixedSoftmaxHead,
    "etf": ETFHead,
    "hpn": HPNHead,
    "trained": TrainedPrototypesHead,
}


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("prototype", "fixed", "trained")])
def test_trained_by_name(name: str, toy: Path, tmp_path: Path) -> None:
    options = {"words": str(toy / "words.txt")} if name == "hpn" else {}
    assert type(train(toy, tmp_path / "run", name, **options)) is KINDS[name]


def test_ours_on_what_a_softmax_run_has_learned(toy: Path, tmp_path: Path) -> None:
    softmax = train(toy, tmp_path / "softmax", "softmax")
    head = train(toy, tmp_path / "ours", "trained", trained=str(tmp_path / "softmax"))
    assert type(head) is TrainedPrototypesHead
    torch.testing.assert_close(head.prototypes, F.normalize(softmax.weight_by_label(), dim=1).detach())
    assert "assignment/changed" in (tmp_path / "ours" / "metrics.csv").read_text()
    with pytest.raises(ValueError, match="3 classes in 2 dimensions; expected the same 3 classes"):
        fit(settings(toy, tmp_path / "wide", "trained", trained=str(tmp_path / "softmax"), dim=4))
    with pytest.raises(ValueError, match="a run with head trained; expected one whose rows were learned"):
        fit(settings(toy, tmp_path / "twice", "trained", trained=str(tmp_path / "ours")))
    assert not (tmp_path / "wide").exists() and not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    ("head", "options", "message"),
    [
        ("etf", {"prototypes": "w.npz"}, "head.prototypes is 'w.npz'; expected none with head etf"),
        ("prototype", {"words": "glove.txt"}, "it is for hpn"),
        ("trained", {}, "head.trained is None; expected the run folder"),
        ("softmax", {"scale": 0.0}, "head.scale is 0.0"),
        ("softmax_uniform", {"uniformity_weight": -1.0}, "head.uniformity_weight is -1.0"),
        ("hpn", {"words": "/no/such/file.txt"}, "no file of word vectors"),
        ("trained", {"trained": "/no/such/run"}, "no run folder or checkpoint"),
    ],
)
def test_settings_that_no_run_can_use(
    head: str, options: dict[str, Any], message: str, toy: Path, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fit(settings(toy, tmp_path / "run", head, **options))
    assert not (tmp_path / "run").exists()


def test_too_many_classes_for_an_etf_are_found_before_the_run(tmp_path: Path) -> None:
    config = TrainConfig(out=str(tmp_path / "run"), progress=False, accelerator="cpu")
    config.head.name = "etf"  # 10 digits in 5 dimensions
    with pytest.raises(ValueError, match="expected dim >= 9"):
        fit(config)
    assert not (tmp_path / "run").exists()


def test_every_head_has_a_name_in_the_trainer() -> None:
    assert set(KINDS) == set(HEADS)
    public = {name for name in baselines.__all__ if name.endswith("Head")} - {"CosineHead"}
    assert public == {kind.__name__ for kind in KINDS.values()} - {"PrototypeHead"}
    config = TrainConfig()
    config.head.name = "arcface"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="'arcface'; expected one of prototype"):
        config.check()
