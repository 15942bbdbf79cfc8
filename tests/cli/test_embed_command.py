"""fastproto-embed: features of a folder, with labels where its folders are classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastproto import cli
from fastproto.cli import embed
from fastproto.training.classifier import load_classifier


def test_features_labels_and_paths(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features.npz"
    assert embed([str(digits_run), str(digit_pictures), str(out), "--batch-size", "33"]) == 0
    assert capsys.readouterr().out == f"450 features in {out}\n"
    found = np.load(out)
    assert found["features"].shape == (450, 5) and found["features"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found["features"], axis=1), 1, atol=1e-6)
    assert found["class_names"].tolist() == list("0123456789")
    folders = [Path(path).parent.name for path in found["paths"]]
    assert found["class_names"][found["labels"]].tolist() == folders
    head = load_classifier(digits_run).head
    predicted = head.predict(torch.from_numpy(found["features"]))[:, 0].numpy()
    assert (predicted == found["labels"]).mean() > 0.75


def test_a_folder_without_classes_has_no_labels(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(digit_pictures.rglob("*.png")).read_bytes()
    (tmp_path / "deeper").mkdir()
    for name in ("a.png", "deeper/b.png"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "c.png").write_bytes(b"no picture")
    assert embed([str(digits_run), str(tmp_path), str(tmp_path / "out.npz")]) == 2
    assert "c.png is not a readable image" in capsys.readouterr().err
    found = np.load(tmp_path / "out.npz")
    assert sorted(found) == ["features", "paths"] and found["paths"].tolist() == ["a.png", "deeper/b.png"]
    np.testing.assert_allclose(found["features"][0], found["features"][1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "required: folder, out"),
        (["run", "folder", "x.npy"], "the output is x.npy; expected a name that ends in .npz"),
        (["nowhere", "folder", "x.npz"], "no run folder or checkpoint nowhere"),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert embed(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_an_existing_file_stays_if_nothing_can_be_read(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    out = tmp_path / "out.npz"
    out.write_bytes(b"of an earlier run")
    assert embed([str(digits_run), str(tmp_path / "pictures"), str(out)]) == 2
    assert capsys.readouterr().err.endswith("error: none of the 1 pictures can be read; expected at least one\n")
    assert out.read_bytes() == b"of an earlier run"


def test_a_folder_of_several_parts_is_refused(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("Training", "test"):
        shutil.copytree(digit_pictures / "3", tmp_path / "data" / part / "3")
    top = tmp_path / "data"
    assert embed([str(digits_run), str(top), str(tmp_path / "out.npz")]) == 2
    message = f"error: the folder {top} holds the parts Training and test; expected one of them, such as {top}/test\n"
    assert capsys.readouterr().err == message
    assert cli.test([str(digits_run), str(top), "--out", str(tmp_path / "test")]) == 2
    assert capsys.readouterr().err == message and list(tmp_path.iterdir()) == [top]
    assert embed([str(digits_run), str(top / "test"), str(tmp_path / "out.npz")]) == 0
