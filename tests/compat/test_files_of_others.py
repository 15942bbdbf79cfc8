"""Prototype files, checkpoints and losses of HPN, of ETF classifiers and of the authors, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto import PrototypeHead, Prototypes, estimate_prototypes, load_prototypes
from fastproto.compat import dl2pa, etf, hpn

C, D = 9, 10


@pytest.fixture
def made() -> Prototypes:
    return estimate_prototypes(C, D)


@pytest.fixture
def head(made: Prototypes) -> PrototypeHead:
    own = PrototypeHead(C, D, prototypes=made)
    for _ in range(3):
        own(torch.randn(C, D), torch.arange(C))
    own.reassign()
    return own


def test_hpn_files(made: Prototypes, head: PrototypeHead, tmp_path: Path) -> None:
    file = tmp_path / "prototypes-10d-9c.npy"
    for given, rows in ((made, made.vectors), (head, head.weight_by_label()), (made.vectors, made.vectors)):
        hpn.save_polars(given, file)
        assert np.array_equal(np.load(file), rows.numpy())
        torch.testing.assert_close(hpn.load_polars(file), rows)
    with pytest.raises(ValueError, match=r"expected a name that ends in .npy"):
        hpn.save_polars(made, tmp_path / "w.pth")


def test_hpn_loss(made: Prototypes) -> None:
    x, labels = torch.randn(20, D, requires_grad=True), torch.randint(0, C, (20,))
    found = hpn.squared_cosine_loss(x, made.vectors[labels])
    y = x.detach().double().requires_grad_()
    rows = made.vectors[labels].double()
    theirs = (1 - nn.CosineSimilarity(eps=1e-9)(y, rows)).pow(2).sum()
    torch.testing.assert_close(found.double(), theirs, rtol=1e-5, atol=0)
    (gradient,), (expected,) = torch.autograd.grad(found, x), torch.autograd.grad(theirs, y)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
    assert hpn.squared_cosine_loss(x[:0], rows[:0].float()) == 0
    with pytest.raises(ValueError, match=r"expected unit rows|expected the same D"):
        hpn.squared_cosine_loss(x, 2 * made.vectors[labels])


def test_etf_matrix(head: PrototypeHead, tmp_path: Path) -> None:
    orthogonal = torch.linalg.qr(torch.randn(D, C)).Q
    matrix = etf.simplex_of(orthogonal)
    gram = matrix.T @ matrix
    torch.testing.assert_close(gram, (C * torch.eye(C) - 1) / (C - 1), rtol=0, atol=1e-5)
    torch.save(matrix, file := tmp_path / "etf.pkl")
    torch.testing.assert_close(etf.load_etf(file).vectors, matrix.T)
    etf.save_etf(head, file)
    assert torch.equal(torch.load(file, weights_only=True), head.weight_by_label().T)
    torch.testing.assert_close(etf.to_etf(etf.from_etf(matrix)), matrix)
    with pytest.raises(ValueError, match="expected D >= C and orthonormal columns"):
        etf.simplex_of(torch.randn(D, C))
    torch.save({"w": matrix}, file)
    with pytest.raises(ValueError, match="holds a dict; expected a tensor"):
        etf.load_etf(file)
    file.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="could not be read"):
        etf.load_etf(file)
    with pytest.raises(FileNotFoundError, match="no file"):
        etf.load_etf(tmp_path / "none.pkl")


def dot_regression(x: Tensor, rows: Tensor) -> Tensor:
    """Their formula; lengths are constants."""
    lengths = x.detach().norm(dim=1)
    return (((x * rows).sum(1) - rows.norm(dim=1) * lengths).square() / lengths).mean() / 2


def test_etf_losses() -> None:
    matrix = etf.simplex_of(torch.linalg.qr(torch.randn(D, C)).Q) * torch.linspace(0.5, 2, C)
    x, labels = torch.randn(20, D, requires_grad=True), torch.randint(0, C, (20,))
    z = F.normalize(x, dim=1)
    found = etf.dot_loss(z, labels, matrix, None, "reg_dot_loss", z.norm(dim=1), 0)
    y = x.detach().double().requires_grad_()
    theirs = dot_regression(F.normalize(y, dim=1), matrix.T[labels].double())
    torch.testing.assert_close(found.double(), theirs, rtol=1e-5, atol=0)
    (gradient,), (expected,) = torch.autograd.grad(found, x), torch.autograd.grad(theirs, y)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
    long, raw = etf.dot_loss(x, labels, matrix), dot_regression(y, matrix.T[labels].double())
    torch.testing.assert_close(long.double(), raw, rtol=1e-5, atol=0)
    (gradient,), (expected,) = torch.autograd.grad(long, x, retain_graph=True), torch.autograd.grad(raw, y)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
    shorter = etf.dot_loss(x, labels, matrix, reg_lam=0.1)
    torch.testing.assert_close(shorter, long + 0.1 * x.norm(dim=1).mean())
    plain = etf.dot_loss(x, labels, matrix, criterion="dot_loss")
    torch.testing.assert_close(plain, -(x * matrix.T[labels]).sum(1).mean())
    with pytest.raises(ValueError, match=r"features are \[20, 10\] and their prototypes \[19, 10\]; expected the same"):
        etf.dot_loss(x, labels[1:], matrix, criterion="dot_loss")
    with pytest.raises(ValueError, match="criterion is 'mse'; expected"):
        etf.dot_loss(x, labels, matrix, criterion="mse")
    with pytest.raises(ValueError, match="reduction is 'sum'; expected 'mean'"):
        etf.DRLoss("sum")


@pytest.mark.parametrize("given", [{}, {"h_norm2": 2.0}, {"m_norm2": 0.5}, {"h_norm2": 2.0, "m_norm2": 0.5}])
def test_dot_regression_as_a_module(given: dict[str, float]) -> None:
    """Lengths that are not given are 1, whatever those of features and rows are."""
    x, rows = torch.randn(20, D, requires_grad=True), torch.randn(20, D)
    found = etf.DRLoss(loss_weight=3.0)(x, rows, **{name: torch.full((20,), value) for name, value in given.items()})
    h, m = given.get("h_norm2", 1.0), given.get("m_norm2", 1.0)
    y = x.detach().double().requires_grad_()
    expected = 3 * (((y * rows).sum(1) - h * m).square() / h).mean() / 2
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    (gradient,), (theirs,) = torch.autograd.grad(found, x), torch.autograd.grad(expected, y)
    torch.testing.assert_close(gradient.double(), theirs, rtol=1e-4, atol=1e-6)


def test_writers_refuse_what_is_no_set_of_prototypes(made: Prototypes, tmp_path: Path) -> None:
    wrong = made.vectors.clone()
    wrong[2] = float("nan")
    for given, message in ((2 * made.vectors, "row 0 has norm 2; expected unit rows"), (wrong, r"first in row 2")):
        for write in (
            lambda rows: dl2pa.save_prototypes(rows, tmp_path),
            lambda rows: hpn.save_polars(rows, tmp_path / "w.npy"),
            lambda rows: etf.save_etf(rows, tmp_path / "w.pkl"),
            etf.to_etf,
        ):
            with pytest.raises(ValueError, match=message):
                write(given)
            with pytest.raises(ValueError, match=r"prototypes has shape \[10\]; expected \[rows, D\]"):
                write(given[0])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="NaN"):
        etf.from_etf(wrong.T)
    with pytest.raises(ValueError, match="columns nan away from orthonormal"):
        etf.simplex_of(wrong.T)


def theirs(classifier: dl2pa.fixed_Classifier, model: nn.Module, prefix: str = "") -> dict[str, Any]:
    """What their loop saves: its calibration error is a NumPy number, its accuracy a tensor."""
    state = {f"{prefix}{k}": v for k, v in classifier.state_dict().items() if k not in ("prototypes", "assignment")}
    own = {f"{prefix}{k}": v for k, v in model.state_dict().items()}
    facts = {"epoch": 3, "best_acc1": torch.tensor([61.5]), "its_ece": np.float64(2.5)}
    return {"state_dict_model": own, "state_dict_classifier": state, "polars": classifier.polars, **facts}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_of_theirs(prefix: str, made: Prototypes, tmp_path: Path) -> None:
    classifier, model = dl2pa.fixed_Classifier(D, C, made), nn.Linear(3, D)
    classifier.forward_momentum(torch.randn(C, D), torch.arange(C))
    classifier.BN_H(torch.randn(8, D))
    classifier.update_fixed_center()
    torch.save(theirs(classifier, model, prefix), file := tmp_path / "model_best.pth.tar")
    found = dl2pa.load_checkpoint(file)
    assert (found.epoch, found.best_acc1) == (3, 61.5)
    model.load_state_dict(found.backbone)
    x = torch.randn(30, D)
    for own in (found.head(), found.fixed_classifier()):
        cosines = own.logits(x) if isinstance(own, PrototypeHead) else own.predict(x)
        torch.testing.assert_close(cosines, classifier.predict(x), rtol=0, atol=1e-5)
    again = found.fixed_classifier()
    assert torch.equal(again.queue, classifier.queue)
    assert torch.equal(again.BN_H.running_mean, classifier.BN_H.running_mean)  # type: ignore[arg-type]  # it tracks them
    assert found.head(loss="eq6").loss == "eq6" and found.head().loss == "official"


def test_a_checkpoint_of_ours_in_their_format(head: PrototypeHead, made: Prototypes, tmp_path: Path) -> None:
    model, file, x = nn.Linear(3, D), tmp_path / "current.pth.tar", torch.randn(30, D)
    dl2pa.save_checkpoint(file, model, head, epoch=7, best_acc1=50.0)
    content = torch.load(file, weights_only=True)
    assert set(content) == {"epoch", "best_acc1", "its_ece", "state_dict_model", "state_dict_classifier", "polars"}
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(content["state_dict_classifier"]) == {"queue", *(f"BN_H.{name}" for name in names)}
    torch.testing.assert_close(F.normalize(x, dim=1) @ content["polars"], head.logits(x))
    back = dl2pa.load_checkpoint(file)
    assert back.epoch == 7 and torch.equal(back.head().predict(x), head.eval().predict(x))
    dl2pa.save_checkpoint(file, model, own := dl2pa.fixed_Classifier(D, C, made))
    assert torch.equal(dl2pa.load_checkpoint(file).polars, own.polars)
    with pytest.raises(TypeError, match="classifier is a DataParallel; expected a fixed_Classifier or a PrototypeHead"):
        dl2pa.save_checkpoint(file, model, nn.DataParallel(own))  # type: ignore[arg-type]  # a wrapped one


def test_checkpoints_draw_no_random_numbers_and_need_one_rank(
    head: PrototypeHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collective would fail: there is no group of two."""
    file, before = tmp_path / "current.pth.tar", torch.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_world_size", lambda: 2)
        dl2pa.save_checkpoint(file, nn.Identity(), head)
    dl2pa.load_checkpoint(file).fixed_classifier()
    assert torch.equal(torch.get_rng_state(), before)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "current.pth.tar"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        dl2pa.load_checkpoint(file)
    for content in (b"none", b"hello"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"could not be read \([a-zA-Z ]{9}.*\); expected a whole checkpoint"):
            dl2pa.load_checkpoint(file)
    torch.save({"state_dict_model": {}, "state_dict_classifier": {}}, file)  # of their learnable classifier
    with pytest.raises(ValueError, match=r"lacks one of .*fixed_classifier: True"):
        dl2pa.load_checkpoint(file)
    whole = {"state_dict_model": {}, "state_dict_classifier": {"queue": torch.randn(C, D)}, "polars": torch.eye(D, C)}
    for wrong, message in (
        ({"state_dict_model": [1]}, "state_dict_model is a list; expected the state"),
        ({"state_dict_classifier": 3}, "state_dict_classifier is a int; expected the state"),
        ({"epoch": "three"}, "epoch or best_acc1 is no number"),
        ({"best_acc1": torch.ones(2)}, "epoch or best_acc1 is no number"),
        ({"polars": torch.ones(3)}, r"polars has shape \[3\]"),
    ):
        torch.save(whole | wrong, file)
        with pytest.raises(ValueError, match=f"{file}: {message}"):
            dl2pa.load_checkpoint(file)


def test_prototype_files_of_the_authors(made: Prototypes, head: PrototypeHead, tmp_path: Path) -> None:
    for given in (made, head, made.vectors, dl2pa.fixed_Classifier(D, C, made)):
        file = dl2pa.save_prototypes(given, tmp_path / "Estimated_prototypes")
        assert file.name == "9centers_10dim.pth"
        assert torch.equal(torch.load(file, weights_only=True)["w"], made.vectors.T)
        torch.testing.assert_close(load_prototypes(file).vectors, made.vectors)
        file.unlink()
