"""fastproto-test: accuracy of a run on a folder, per class, with its errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fastproto import cli


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
        ("other", "has 'dog', which is no class of the run; expected"),
        ("bad", "none of the 1 pictures can be read; expected at least one"),
    ):
        out = tmp_path / "out"
        assert cli.test([str(digits_run), str(tmp_path / name), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err and not out.exists()
