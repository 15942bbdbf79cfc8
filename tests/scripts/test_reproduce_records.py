"""Records of scripts/reproduce: they merge, and what is no record is named; and the tables that show them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastproto.cli.train_command import parse_train
from fastproto.training.resume_rules import PATHS
from fastproto.training.setting_types import settings_of
from lib.repository import RESULTS
from lib.reproduce import command
from lib.reproduce.cells import Cell, Place
from lib.reproduce.recipes import Machine, arguments_of
from lib.reproduce.records import KEYS, load_records
from lib.reproduce.run_folders import ELSEWHERE

PSC = Cell("table1", "psc", "cifar100", 10, "resnet32", 250)


def main(arguments: list[str], committed: Path = Path("nowhere")) -> int:
    """The command, beside records of the repository that no test knows."""
    return command.main(arguments, "", committed=committed)


def record(folder: Path, cell: Cell = PSC, **changed: Any) -> Path:
    """Write a record; return its path."""
    values = dict.fromkeys(KEYS, 0.5) | {
        "format": 1,
        "cell": cell.to_dict(),
        "settings": {"optim.lr": 0.1, "optim.name": "sgd", "optim.epochs": 250, "model.name": "resnet32"},
        "curve": [{"epoch": 0, "train_loss": 1.0, "validation": 0.5, "moved": 0.25}],
        "finished": "2026-01-01T00:00:00+00:00",
        "commit": "unknown",
        "device": "cpu",
    }
    path = Place(folder).record(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values | changed))
    return path


def test_records_of_several_machines_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, out = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    other = replace(PSC, seed=1)
    record(one, test=0.25)
    newer = {"finished": "2026-01-02T00:00:00+00:00", "device": "another machine's GPU", "versions": {"torch": "2.99"}}
    record(two, test=0.75, settings={"optim.lr": 0.1, "newer": True}, **newer)
    record(two, other, test=0.125)
    assert main(["merge", str(two), str(one), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"2 records in {out / 'records'}\n"
    assert {cell: found["test"] for cell, found in load_records([out]).items()} == {PSC: 0.75, other: 0.125}


def test_other_settings_of_the_same_cell_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "one")
    record(tmp_path / "two", settings={"optim.lr": 0.2})
    assert main(["merge", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "was made with optim.lr 0.1 and" in error and "with 0.2; expected one cell" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize(
    ("data", "dim", "recipe"),
    [("cifar100", 10, "resnet32"), ("cifar100-lt-0.01", 128, "resnet32-lt"), ("cifar10-lt-0.01", 64, "resnet32-lt")],
)
def test_both_layouts_of_cifar_are_one_cell(data: str, dim: int, recipe: str, on_cpu: bool, tmp_path: Path) -> None:
    """Torchvision's files and a folder of pictures, in either order; the newer record stays."""
    cell = replace(PSC, data=data, dim=dim, recipe="cnn" if on_cpu else recipe)
    for name in ("files", "pictures"):
        (tmp_path / name / ("train" if name == "pictures" else "cifar")).mkdir(parents=True)
        roots = {data.partition("-lt-")[0]: tmp_path / name}
        config = parse_train(arguments_of(cell, Place(tmp_path / "out"), Machine(roots)))
        settings = {key: value for key, _, value in settings_of(config) if key not in ELSEWHERE}
        day = "2026-01-02" if name == "pictures" else "2026-01-01"
        record(tmp_path / name, cell, settings=settings, test=0.25, finished=f"{day}T00:00:00+00:00")
    for folders in (["files", "pictures"], ["pictures", "files"]):
        (found,) = load_records([tmp_path / name for name in folders]).values()
        assert found["settings"]["data.name"] == "image-folder"  # a record says what was read


@pytest.mark.parametrize(
    ("data", "one", "two"),
    [
        ("cifar100", ("image-folder", "auto"), ("cifar100", "auto")),  # pictures are jittered then
        ("cifar100", ("image-folder", "crop_flip"), ("cifar100", "none")),
        ("cifar100", ("image-folder", "crop_flip"), ("cifar10", "auto")),
        ("imagenet200", ("image-folder", "crop_flip"), ("imagenet200", "auto")),
    ],
)
def test_other_sources_of_a_cell_are_refused(
    data: str, one: tuple[str, str], two: tuple[str, str], tmp_path: Path
) -> None:
    for name, augment in (one, two):
        settings = {"data.name": name, "data.augment": augment}
        record(tmp_path / f"{name}-{augment}", replace(PSC, data=data), settings=settings)
    with pytest.raises(ValueError, match="was made with data"):
        load_records(tmp_path.iterdir())


def test_a_record_says_on_what_it_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"optim.lr": 0.1, "optim.name": "sgd", "optim.epochs": 250, "model.name": "resnet32"}
    machine = {"cpu": "Model 7", "threads": 3, "jobs": 2}
    commit = f"{'0123456789' * 4}-dirty"
    record(tmp_path, settings=settings | {"data.name": "image-folder"}, machine=machine, commit=commit)
    assert main(["table1", "--show", "--cell", "d=10,method=psc", "--recipe", "paper", "--out", str(tmp_path)]) == 0
    made = "250 epochs, pictures in folders, on cpu (Model 7, threads: 3, jobs: 2), commit 0123456789-dirty, seed 0"
    assert made in capsys.readouterr().out


def test_records_of_the_repository_were_made_with_what_their_cells_say(tmp_path: Path) -> None:
    """One of each method: a cell whose settings change needs another name, or its records go."""
    (tmp_path / "train").mkdir()
    records = load_records([RESULTS])
    for cell in {(cell.table, cell.method, cell.data, cell.budget): cell for cell in records}.values():
        made = records[cell]["settings"]
        roots = {name: tmp_path for name in ("cifar10", "cifar100") if made["data.name"] == "image-folder"}
        config = parse_train(arguments_of(cell, Place(tmp_path / "out"), Machine(roots)))
        said = {key: value for key, _, value in settings_of(config) if key in made and key not in PATHS}
        assert {key: made[key] for key in said if said[key] != "auto"} == {
            key: value for key, value in said.items() if value != "auto"
        }, cell.name


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "cell": {}}', "nonsense"])
def test_a_file_that_is_no_record_is_named(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path)
    path.write_text(text)
    assert main(["table1", "--show", "--recipe", "paper", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} is no record that can be read (") and error.count("\n") == 1


def test_a_record_under_another_name_is_named(tmp_path: Path) -> None:
    path = record(tmp_path)
    path.rename(path.with_name("other.json"))
    with pytest.raises(ValueError, match=f"it is of the cell table1/{PSC.name}"):
        load_records([tmp_path])


def test_the_table_shows_all_seeds_and_every_number_of_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, test in ((0, 0.25), (1, 0.35)):
        record(tmp_path, replace(PSC, seed=seed), test=test)
    record(tmp_path, replace(PSC, recipe="cnn", epochs=3), test=0.125)
    shown = ["--show", "--recipe", "paper", "--out", str(tmp_path)]
    assert main(["table1", "--cell", "cifar100,d=10", *shown]) == 0
    printed = capsys.readouterr().out
    assert "Ours: resnet32, sgd 0.1, 250 epochs, on cpu, commit unknown, seeds 0, 1; 0.5 s an epoch." in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith("cifar100")]
    assert ["cifar100", "10", "psc", "resnet32", "250", "25.67", "30.00", "±", "7.07"] in [row[:9] for row in rows]
    assert ["cifar100", "10", "psc", "cnn", "3", "25.67", "12.50"] in [row[:7] for row in rows]
    assert ["cifar100", "10", "dynamic", "resnet32", "250", "57.21", "not", "run"] in rows


def test_precisions_are_cells_and_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"model.name": "cnn", "optim.name": "adamw", "optim.lr": 0.01, "optim.epochs": 20}
    full = replace(PSC, recipe="cnn", epochs=20)
    half = replace(full, precision="bf16-mixed")
    path = record(tmp_path, full, settings=settings, test=0.25)
    path.write_text(path.read_text().replace(', "precision": "32-true"', ""))  # as of an earlier version
    record(tmp_path, half, settings=settings | {"precision": half.precision}, test=0.5)
    assert set(load_records([tmp_path])) == {full, half}
    assert main(["table1", "--cell", "d=10,method=psc", "--show", "--recipe", "cnn", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert {"cifar100 10 psc cnn 20 25.67 25.00", "cifar100 10 psc cnn, bf16-mixed 20 25.67 50.00"} <= {
        row.rsplit(" ", 3)[0] for row in rows
    }
    assert "Ours: cnn, adamw 0.01, 20 epochs, bf16-mixed, on cpu" in printed


def test_figure_4b_shows_the_labels_that_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path, replace(PSC, method="dynamic"))
    assert main(["figure4b", "--show", "--recipe", "paper", "--out", str(tmp_path)]) == 0
    head, row = capsys.readouterr().out.partition("labels that moved at a renewal, %\n")[2].splitlines()[:2]
    assert head == "epoch  D = 10, resnet32, 250 epochs, seed 0" and row.split() == ["0", "25.00"]


def test_records_of_the_repository_are_shown_but_not_taken_for_this_machine_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "committed", test=0.625)
    asked = ["table1", "--cell", "cifar100,d=10,method=psc", "--recipe", "paper", "--out", str(tmp_path / "out")]
    assert main([*asked, "--list"], tmp_path / "committed") == 0
    assert "done, test 62.50 % (a record of the repository)" in capsys.readouterr().out


def test_figure_4a_is_drawn_from_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for dim in (10, 25):
        record(tmp_path, replace(PSC, method="dynamic", dim=dim, recipe="cnn", epochs=20))
    asked = ["figure4a", "--accelerator", "cpu", "--out", str(tmp_path)]
    assert main([*asked, "--cell", "d=10,method=dynamic", "--show"]) == 0
    assert "written to" not in capsys.readouterr().out and not (tmp_path / "figure4a.png").exists()
    assert main([*asked, "--cell", "d=10,method=dynamic"]) == 0
    assert f"written to {tmp_path / 'figure4a.png'}" in capsys.readouterr().out
    assert (tmp_path / "figure4a.png").stat().st_size > 1000
