"""fastproto-test: accuracy of a run on a folder, per class, with its errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fastproto import cli

from ..data.helpers import fill


def test_accuracy_and_errors(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert cli.test([str(digits_run), str(digit_pictures), "--out", str(out), "--batch-size", "100"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "test.json").read_text())
    assert (found["pictures"], found["unreadable"]) == (450, 0)
    assert 0.75 < found["accuracy_top1"] < found["accuracy_top5"] <= 1
    assert f"accuracy            {100 * found['accuracy_top1']:.2f} %, top-5 " in printed
    classes = found["classes"]
    assert list(classes) == list("0123456789") and sum(row["pictures"] for row in classes.values()) == 450
    right = sum(row["pictures"] * row["accuracy"] for row in classes.values())
    wrong = sum(row["pictures"] for row in found["errors"])
    assert right == pytest.approx(450 * found["accuracy_top1"]) == pytest.approx(450 - wrong)
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_some_classes_and_an_unreadable_file(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("3", "7"):
        shutil.copytree(digit_pictures / name, tmp_path / "some" / name)
    (tmp_path / "some" / "7" / "x.png").write_bytes(b"no picture")
    assert cli.test([str(digits_run / "checkpoints" / "best.ckpt"), str(tmp_path / "some")]) == 2
    assert "x.png is not a readable image" in capsys.readouterr().err
    found = json.loads((digits_run / "test" / "test.json").read_text())
    assert list(found["classes"]) == ["3", "7"] and found["unreadable"] == 1
    assert found["pictures"] == sum(1 for _ in (tmp_path / "some").rglob("*.png")) - 1


def test_folders_that_cannot_be_tested(digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.png").write_bytes(b"no picture")
    (tmp_path / "other" / "dog").mkdir(parents=True)
    (tmp_path / "other" / "dog" / "x.png").write_bytes(b"no picture")
    (tmp_path / "bad" / "3").mkdir(parents=True)
    (tmp_path / "bad" / "3" / "x.png").write_bytes(b"no picture")
    for name, message in (
        ("none", "no folder"),
        ("empty", "has no pictures"),
        ("flat", "has pictures without a class; expected folders named as the classes of the run ('0', '1', '2', ...)"),
        ("other", "has 'dog', which is no class of the run; expected folders named as the classes of the run ("),
        ("bad", "none of the 1 pictures can be read; expected at least one"),
    ):
        out = tmp_path / "out"
        assert cli.test([str(digits_run), str(tmp_path / name), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err and not out.exists()


def test_names_of_folders_in_a_table(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digit_pictures / "3", tmp_path / "val" / "n00000003")
    command = [str(digits_run), str(tmp_path / "val"), "--out", str(tmp_path / "out")]
    assert cli.test(command) == 2
    assert "or lines folder<TAB>class in classes.tsv" in capsys.readouterr().err
    (tmp_path / "classes.tsv").write_text("n00000002\t2\nn00000003\t3\n")
    assert cli.test(command) == 0
    assert list(json.loads((tmp_path / "out" / "test.json").read_text())["classes"]) == ["3"]


def test_a_checkpoint_outside_a_run_needs_a_folder(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    checkpoint = shutil.copy(digits_run / "checkpoints" / "best.ckpt", tmp_path / "models" / "digits.ckpt")
    assert cli.test([str(checkpoint), str(digit_pictures)]) == 2
    assert "digits.ckpt is in no run folder; give a folder for the results with --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert cli.test([str(checkpoint), str(digit_pictures), "--out", str(tmp_path / "out")]) == 0


def test_a_run_folder_with_its_checkpoint_alone(digits_run: Path, digit_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(digits_run / "checkpoints" / "best.ckpt", tmp_path / "run" / "checkpoints")
    assert cli.test([str(tmp_path / "run"), str(digit_pictures)]) == 0
    assert json.loads((tmp_path / "run" / "test" / "test.json").read_text())["pictures"] == 450


def test_a_top5_accuracy_of_zero_is_printed(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next(digit_pictures.rglob("*.png"))
    assert cli.predict([str(digits_run), str(picture), "-k", "10"]) == 0
    last = capsys.readouterr().out.split("\t")[-2]
    (tmp_path / last).mkdir()
    shutil.copy(picture, tmp_path / last)
    assert cli.test([str(digits_run), str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "accuracy            0.00 %, top-5 0.00 %\n" in capsys.readouterr().out


def test_more_classes_than_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All pictures look the same, so that most classes have the accuracy 0."""
    names = [f"class{i:02}" for i in range(23)]
    root, run = str(fill(tmp_path / "pictures", *names, count=4)), str(tmp_path / "run")
    options = ["--data", "image-folder", "--data.root", root, "--data.image_size", "8", "--data.cache", "false"]
    options += ["--model", "mlp", "--head.dim", "4", "--optim.epochs", "1", "--progress", "false"]
    assert cli.train([*options, "--accelerator", "cpu", "--out", run]) == 0
    capsys.readouterr()
    assert cli.test([run, root]) == 0
    assert "  3 more classes, all of the same or higher accuracy, are in test.json\n" in capsys.readouterr().out
