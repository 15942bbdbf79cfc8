"""fastproto-prototypes as a user types it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import load_prototypes
from fastproto.cli import prototypes, train

PROTOTYPES = ["--num-classes", "5", "--dim", "3"]
QUICK = ["--model", "mlp", "--optim.epochs", "1", "--progress", "false", "--accelerator", "cpu"]


def test_prototypes_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "w.safetensors"
    assert prototypes(["--num-classes", "20", "--dim", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "L_uni" in printed and "max cosine" in printed and str(out) in printed
    assert load_prototypes(out).vectors.shape == (20, 3)
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert prototypes(["--measure", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[:6] == printed.splitlines()[:6]
    for arguments, message in (
        (["--num-classes", "20"], "nothing to do"),
        (["--num-classes", "1", "--dim", "3"], "at least 2"),
        (["--num-classes", "5", "--dim", "3", "--out", "w.txt"], "ends in .safetensors"),
        (["--measure", str(tmp_path / "none.npz")], "no prototype file"),
    ):
        assert prototypes(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_prototypes_made_by_hand_are_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "w.npz"
    assert prototypes(["--num-classes", "10", "--dim", "6", "--out", str(out)]) == 0
    arguments = [*QUICK, "--head.prototypes", str(out), "--head.dim", "6", "--out", str(tmp_path / "run")]
    assert train(arguments) == 0
    from fastproto.training.classifier import load_classifier

    head = load_classifier(tmp_path / "run").head
    assert torch.equal(head.prototypes, load_prototypes(out).vectors)  # type: ignore[union-attr]
    out.unlink()  # a checkpoint needs nothing beside it
    assert load_classifier(tmp_path / "run") is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-classes", "-3", "--dim", "3"], "at least 2"),
        (["--num-classes", "1e9", "--dim", "3"], "--num-classes is '1e9'; expected a whole number"),
        (["--num-classes", "10.0", "--dim", "3"], "--num-classes is '10.0'; expected a whole number"),
        (["--num-classes", "9" * 12, "--dim", "3"], "this machine has"),
        (["--num-classes", "5", "--dim", "0"], "at least 2"),
        (["--num-classes"], "--num-classes has no value"),
        (["--num_classes", "5"], "did you mean --num-classes?"),
        ([*PROTOTYPES, "--t", "nan"], "t is nan"),
        ([*PROTOTYPES, "--t", "two"], "--t is 'two'; expected a number"),
        ([*PROTOTYPES, "--t", "-1e-3"], "t is -0.001"),
        ([*PROTOTYPES, "--time-limit", "nan"], "time_limit is nan"),
        ([*PROTOTYPES, "--max-passes", "0"], "max_passes is 0"),
        ([*PROTOTYPES, "--seed", "-1"], "--seed is -1"),
        ([*PROTOTYPES, "--device", "xyz"], "--device is xyz"),
        ([*PROTOTYPES, "--device", "meta"], "--device is meta"),
        ([*PROTOTYPES, "--device", "cuda:99"], "--device is cuda:99"),
        ([*PROTOTYPES, "--device", "privateuseone"], "--device is privateuseone"),
        ([*PROTOTYPES, "--out", ""], "--out is .; expected a name that ends in"),
        ([*PROTOTYPES, "--lr", "0.1"], "--lr has no meaning without --method sgd"),
        ([*PROTOTYPES, "--method", "sgd", "--effort", "best"], "--effort has no meaning with --method sgd"),
        ([*PROTOTYPES, "--names", "x"], "--names has no meaning without --words"),
        ([*PROTOTYPES, "--method", "sgd", "--objective", "max_cosine"], "sgd minimises L_uni"),
        ([*PROTOTYPES, "--out", "/dev/null/x.npz"], "nothing can be written in /dev/null"),
        ([*PROTOTYPES, "--picture", "x.xyz"], "ends in .png"),
        ([*PROTOTYPES, "junk"], "unknown argument 'junk'"),
        (["--measure", "x.npz", "--num-classes", "5"], "--num-classes has no meaning with --measure"),
        (["--measure", "x.npz", "--no-cache"], "--no-cache has no meaning with --measure"),
        (["--words", "x"], "with no --names"),
        (["--words", "x", "--names", "/none"], "with --names /none, which is no file"),
    ],
)
def test_wrong_arguments_of_prototypes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prototypes(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_wrong_files_of_prototypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "integers.npy", np.eye(3, dtype=int))
    np.save(tmp_path / "complex.npy", np.eye(3, dtype=complex))
    torch.save({"w": torch.eye(3, dtype=torch.int64)}, tmp_path / "integers.pth")
    torch.save({"w": torch.empty(3, 3, device="meta")}, tmp_path / "meta.pth")
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
        ("integers.npy", "int64"),
        ("complex.npy", "complex128"),
        ("integers.pth", "a tensor of torch.int64; expected a matrix of floating-point numbers"),
        ("meta.pth", "holds no matrix"),
        ("folder.npz", "no prototype file"),
    ):
        assert prototypes(["--measure", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error and str(tmp_path / name) in error and error.count("\n") == 1
    assert prototypes([*PROTOTYPES, "--out", str(tmp_path / "folder.npz")]) == 2
    assert "a folder; expected the name of a file" in capsys.readouterr().err
    vectors, names = tmp_path / "vectors.txt", tmp_path / "names.txt"
    vectors.write_text("kaffee 1 2 3\ncafé 3 2 1\n", encoding="utf-8")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        names.write_text("Kaffee\ncafé\n", encoding=encoding)
        assert prototypes(["--words", str(vectors), "--names", str(names)]) == 0
    capsys.readouterr()
    names.write_text("Kaffee\ncafé\n", encoding="latin-1")
    assert prototypes(["--words", str(vectors), "--names", str(names)]) == 2
    assert str(names) in capsys.readouterr().err
