"""fastproto-predict: wrong arguments, folders and tables. Single images: test_commands.py."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastproto.cli import predict
from fastproto.data.decode_all import processes_for

PATIENCE = 600  # seconds, for what takes some: a hang has no end
FEW_OPEN_FILES = """
import os, resource, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
from fastproto.cli import predict
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
sys.exit(predict(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: checkpoint, IMAGE"),
        (["run", "x.png", "-k", "two"], "-k is 'two'; expected a whole number"),
        (["run", "x.png", "--devise", "cpu"], "did you mean --device?"),
        (["run", "x.png", "--device"], "--device has no value"),
        (["run", "x.png", "--device", "meta"], "--device is meta, which this machine lacks"),
        (["run", "x.png", "--batch-size", "0"], "--batch-size is 0; expected a whole number >= 1"),
        (["run", "x.png", "--out", "x.txt"], "--out is x.txt; expected a name that ends in .csv"),
    ],
)
def test_wrong_arguments_of_predict(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_folder_as_a_table(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "labels.csv"
    command = [str(digits_run), str(digit_pictures), "-k", "2"]
    assert predict([*command, "--out", str(out), "--batch-size", "7"]) == 0
    assert capsys.readouterr().out == f"450 images labelled in {out}\n"
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "cosine", "label2", "cosine2"]
    assert predict(command) == 0
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(p, a, b) for p, a, _, b, _ in printed] == [(row["path"], row["label"], row["label2"]) for row in rows]
    right = sum(Path(row["path"]).parent.name == row["label"] for row in rows)
    assert len(rows) == 450 and right > 350


def test_unreadable_files_are_named_and_skipped(
    digits_run: Path, digit_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(digit_pictures.rglob("*.png")).read_bytes()
    for name, content in (("a.png", whole), ("b.png", whole[:40]), ("c.png", whole), ("d.txt", b"text")):
        (tmp_path / name).write_bytes(content)
    assert predict([str(digits_run), str(tmp_path), "--out", str(tmp_path / "labels.csv")]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("2 images labelled in ")
    note, error = printed.err.splitlines()
    assert note == "note: not used: 1 file of unknown kind (d.txt)"
    assert error.startswith(f"error: {tmp_path / 'b.png'} is not a readable image (")


def test_an_existing_table_stays_if_nothing_can_be_read(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    out = tmp_path / "labels.csv"
    out.write_text("of an earlier run")
    assert predict([str(digits_run), str(tmp_path / "a.png"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith("error: none of the 1 pictures can be read; expected at least one\n")
    assert out.read_text() == "of an earlier run"


def test_a_large_batch_and_few_open_files(digits_run: Path, digit_pictures: Path, tmp_path: Path) -> None:
    """Two processes read: each must not need open files for each picture."""
    picture, out = tmp_path / "x.png", tmp_path / "labels.csv"
    picture.write_bytes(next(digit_pictures.rglob("*.png")).read_bytes())
    os.truncate(picture, 2_000_000)  # zeros behind the picture: files of that size are read by several processes
    images = [str(picture)] * 200
    if not processes_for([picture] * 200):
        pytest.skip("needs two cores and Linux")
    command = [sys.executable, "-c", FEW_OPEN_FILES, str(digits_run), *images, "--batch-size", "100", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "") and len(out.read_text().splitlines()) == 201
