"""Cells of scripts/reproduce without training: tables, filters, records that merge, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fastproto.cli.train_command import parse_train
from fastproto.data.load import TAKEN_BY
from fastproto.training.heads import HEADS
from lib.repository import ROOT
from lib.reproduce import command
from lib.reproduce.cells import Cell, Place, cell_of, choose
from lib.reproduce.computed import ROWS, STUDIES
from lib.reproduce.methods import METHODS
from lib.reproduce.recipes import DOWNLOADED, RECIPES, Machine, arguments_of, settings_of, trained_by
from lib.reproduce.search_figures import figure3a, figure3c
from lib.reproduce.tables import COMPARED, TABLES

EVERY = [cell for table in TABLES.values() for cell in table.cells]
PSC = Cell("table1", "psc", "cifar100", 10, "resnet32", 250)


def main(arguments: list[str], committed: Path = Path("nowhere")) -> int:
    """The command, beside records of the repository that no test knows."""
    return command.main(arguments, "", committed=committed)


def value_of(arguments: list[str], key: str) -> str | None:
    return arguments[arguments.index(key) + 1] if key in arguments else None


# --- tables ----------------------------------------------------------------------------------------------------------


def test_every_table_and_figure_has_a_name_in_the_usage() -> None:
    usage = (ROOT / "scripts" / "reproduce").read_text(encoding="utf-8")
    names = {f"table{number}" for number in range(1, 10)}
    names |= {"figure2", *(f"figure3{part}" for part in "abcd"), "figure4a", "figure4b", *STUDIES}
    names |= {"losses", "loss_powers", "reasons"}
    assert names == {*TABLES, *ROWS, *STUDIES} and all(name in usage for name in names)


def test_names_of_cells_tell_them_apart_and_fit_any_file_system() -> None:
    cells = set(EVERY)
    assert len({(cell.table, cell.name) for cell in cells}) == len(cells) > 100
    assert all(
        cell.name.replace("-", "").replace("=", "").replace(".", "").replace("_", "").isalnum() for cell in cells
    )
    assert all(cell_of(json.loads(json.dumps(cell.to_dict()))) == cell for cell in cells)


def test_every_cell_has_a_head_that_its_dimension_allows() -> None:
    for cell in EVERY:
        assert settings_of(cell)["head.name"] in HEADS
        classes = {"cifar100": 100, "cifar10": 10, "svhn": 10, "stl10": 10}.get(cell.data.partition("-lt")[0])
        assert cell.method != "etf" or (classes is not None and cell.dim >= classes - 1), cell
        assert cell.table == "losses" or cell.epochs == RECIPES[cell.recipe].epochs  # losses has short budgets


def test_cross_entropy_has_its_own_rate() -> None:
    rates = {method: settings_of(replace(PSC, method=method)).get("optim.lr") for method in METHODS}
    assert {method for method, rate in rates.items() if rate == "0.1"} == {
        *("psc", "psc-uniform", "linear", "fixed-softmax", "softmax-norm", "fixed-softmax-norm"),
    }
    assert settings_of(PSC)["head.reduction"] == "mean"


def test_half_of_the_loss_has_twice_the_rate_and_the_same_steps() -> None:
    config = parse_train(["--recipe", "cifar100-d10"])
    doubled = {"optim.lr": f"{2 * config.optim.lr:g}", "optim.weight_decay": f"{config.optim.weight_decay / 2:g}"}
    for method, made in METHODS.items():
        settings = settings_of(replace(PSC, method=method))
        assert (doubled.items() <= (settings | {"optim.weight_decay": "5e-05"}).items()) == made.halved, method


def test_every_command_is_one_of_fastproto_train_and_its_recipe_has_the_epochs() -> None:
    """Prototypes are searched to the end."""
    machine = Machine(words=Path("words.txt"))
    for cell in dict.fromkeys(EVERY):
        config = parse_train(arguments_of(cell, Place(Path("nowhere")), machine))
        assert (config.head.dim, config.optim.epochs, config.head.effort) == (cell.dim, cell.epochs, "best")
        named = settings_of(cell).get("recipe")
        assert (named is None) == (cell.recipe == "cnn")
        if named is not None:
            budget = parse_train(["--recipe", named])
            assert budget.optim.epochs == cell.epochs and budget.head.dim == cell.dim, cell


def test_overrides_come_last() -> None:
    cell = replace(PSC, overrides=(("head.scale", "1"), ("optim.lr", "7")))
    assert settings_of(cell)["head.scale"] == "1" and settings_of(cell)["optim.lr"] == "7"
    first = trained_by(replace(cell, method="dynamic-from-psc"))
    assert first is not None and first.overrides == (("optim.lr", "7"),)  # those of the head are the method's own


def test_a_run_begins_from_a_cell_of_the_tables() -> None:
    """Else table 8 would train table 1's psc again."""
    firsts = {first for cell in EVERY if (first := trained_by(cell)) is not None}
    assert firsts and firsts <= set(EVERY)


# --- commands --------------------------------------------------------------------------------------------------------


def test_a_folder_of_pictures_stands_for_cifar(tmp_path: Path) -> None:
    machine = Machine({"cifar100": tmp_path}, accelerator="cpu")
    place = Place(tmp_path / "out")
    arguments = arguments_of(PSC, place, machine)
    assert value_of(arguments, "--data.name") == "cifar100" and value_of(arguments, "--data.root") == str(tmp_path)
    (tmp_path / "train").mkdir()
    assert value_of(arguments_of(PSC, place, machine), "--data.name") == "image-folder"
    assert value_of(arguments, "--accelerator") == "cpu" and value_of(arguments, "--out") == str(place.run(PSC))


@pytest.mark.parametrize("recipe", ["resnet32", "cnn"])
@pytest.mark.parametrize("data", ["cifar100", "cifar100-lt-0.02"])
def test_pictures_in_folders_are_augmented_like_the_files_of_cifar(tmp_path: Path, data: str, recipe: str) -> None:
    (tmp_path / "train").mkdir()
    cell = replace(PSC, data=data, recipe=recipe)
    config = parse_train(arguments_of(cell, Place(tmp_path / "out"), Machine({"cifar100": tmp_path})))
    assert (config.data.name, config.data.augment) == ("image-folder", "crop_flip")


def test_only_sets_that_can_be_downloaded_are(tmp_path: Path) -> None:
    assert TAKEN_BY["download"] == DOWNLOADED
    machine = Machine({"cifar100": tmp_path}, download=True)
    asked = {cell.data: arguments_of(cell, Place(tmp_path / "out"), machine) for cell in EVERY}
    assert {data for data, arguments in asked.items() if "--data.download" in arguments} == {
        data for data in asked if data.partition("-lt-")[0] in DOWNLOADED
    }
    (tmp_path / "train").mkdir()
    assert "--data.download" not in arguments_of(PSC, Place(tmp_path / "out"), machine)


def test_a_run_that_has_begun_is_resumed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run(PSC).mkdir(parents=True)
    (place.run(PSC) / "config.yaml").touch()
    arguments = arguments_of(PSC, place, Machine())
    assert value_of(arguments, "--resume") == str(place.run(PSC)) and "--out" not in arguments


def test_options_change_recipe_epochs_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["table1", "--list", "--cell", "cifar100,d=10,method=psc", "--epochs", "2", "--seeds", "3,4"]
    assert main([*asked, "--accelerator", "cpu", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[::2]] == [
        f"table1 cifar100-d10-psc-cnn-e2-seed{s}" for s in (3, 4)
    ]
    assert main([*asked, "--recipe", "paper", "--out", str(tmp_path)]) == 0
    assert "resnet32-e2-seed3" in capsys.readouterr().out
    assert main([*asked, "--recipe", "cnn", "--precision", "bf16-mixed", "--out", str(tmp_path)]) == 0
    first, command, *_ = capsys.readouterr().out.splitlines()
    assert "cnn-bf16-mixed-e2-seed3" in first and "--precision bf16-mixed" in command
    assert list(tmp_path.iterdir()) == []


def test_output_that_nobody_reads_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as of ``scripts/reproduce table1 --list | head -1``."""

    def closed(*args: object) -> str:
        raise BrokenPipeError

    monkeypatch.setattr(command, "list_cells", closed)
    assert main(["table1", "--list", "--accelerator", "cpu"]) == 0


def test_what_needs_words_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["table1", "--cell", "cifar100,d=10,method=word2vec", "--accelerator", "cpu", "--out", str(tmp_path)]
    assert main(asked) == 1
    assert "word2vec-cnn-e20-seed0: it needs --words FILE" in capsys.readouterr().out


def test_what_needs_a_folder_says_so_once_and_nothing_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["table1", "--cell", "d=10", "--cell", "imagenet200-32px", "--accelerator", "cpu", "--out", str(tmp_path)]
    assert main([*asked, "--list"]) == 0
    states = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert len(states) == 11 and all(line.count("it needs") == 1 for line in states)
    assert sum(line.endswith(": not run: it needs --root cifar100=DIR") for line in states) == 5
    for download in ([], ["--download"]):  # into which folder is not said
        assert main([*asked, *download]) == 1
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if line.startswith("not run:")]
        assert lines == [
            "not run: table1 cifar100-d10-psc-cnn-e20-seed0 and 4 more: it needs --root cifar100=DIR",
            "not run: table1 cifar100-d10-word2vec-cnn-e20-seed0: it needs --words FILE with vectors of the class "
            "names and --root cifar100=DIR",
            "not run: table1 imagenet200-32px-d25-psc-cnn-e20-seed0 and 4 more: it needs --root imagenet200=DIR",
        ]
        assert "failed:" not in printed and not (tmp_path / "runs").exists()
    begun = tmp_path / "runs" / "table1" / "cifar100-d10-psc-cnn-e20-seed0"
    begun.mkdir(parents=True)
    (begun / "config.yaml").write_text("")  # a run that has begun knows where its data lie
    main([*asked, "--minutes", "1e-9"])
    assert "not run: table1 cifar100-d10-hpn-cnn-e20-seed0 and 3 more: it needs --root" in capsys.readouterr().out
    root = ["--root", f"cifar100={tmp_path / 'new'}"]
    assert main([*asked, *root, "--list"]) == 2
    assert main([*asked, *root, "--list", "--download"]) == 0


# --- filters ---------------------------------------------------------------------------------------------------------


def test_filters_choose_cells_in_their_order() -> None:
    cells = list(TABLES["table1"].cells)
    chosen = choose(cells, ["cifar100,d=25,method=dynamic", "cifar100,d=10"])
    assert [(cell.dim, cell.method) for cell in chosen] == [
        *((10, method) for method in (*COMPARED, "dynamic-power-auto", "linear")),
        (25, "dynamic"),
    ]
    assert choose(cells, []) == cells


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cifar100,d=11", "no cell fits; expected d to be one of 10, 25, 50, 100, 200"),
        ("epochs=60", "no cell fits; expected epochs to be one of 250; others are asked for with --epochs 60"),
        ("d=10,seed=1", "no cell fits; expected seed to be one of 0; others are asked for with --seeds 1"),
        ("recipe=cnn", "others are asked for with --recipe paper or --recipe cnn"),
        ("imagenet200,d=10", "no cell fits; its parts do not occur together"),
        ("metod=psc", "'metod=psc' says nothing of a cell; did you mean method=?"),
        ("cifar100,", "'' says nothing of a cell"),
        ("d=10,d=25", "--cell 'd=10,d=25' has d twice; expected one value: give --cell once for each"),
    ],
)
def test_a_filter_that_no_cell_fits_is_named(text: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table1", "--list", "--recipe", "paper", "--cell", text]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tabel1"], "there is no table or figure 'tabel1'; did you mean table1?"),
        (["table1", "table2"], "table2 is no option of table1; only merge takes folders"),
        (["merge"], "merge has no folders; expected scripts/reproduce merge DIR"),
        (["merge", "nowhere"], "nowhere holds no records; expected a folder that scripts/reproduce --out has written"),
        (["table1", "--epochs", "0"], "--epochs is 0; expected a whole number of at least 1"),
        (["table1", "--jobs", "-1"], "--jobs is -1; expected a whole number of at least 1"),
        (["table1", "--minutes", "nan"], "--minutes is nan; expected a number > 0"),
        (["table1", "--precision", "bf16"], "'bf16'"),
        (["table1", "--seeds", "0,x"], "'0,x' is no list of seeds; expected whole numbers"),
        (["table1", "--root", "cifar=."], "'cifar=.' names no data set; expected NAME=DIR of cifar100"),
        (["table1", "--root", "cifar100=nowhere"], "--root nowhere is not a folder; expected one that is there"),
        (["table1", "--words", "nowhere"], "--words nowhere is not a file; expected word vectors"),
        (
            ["figure2", "--cell", "d=10"],
            "--cell does nothing for figure2; it takes --published and --out: leave it out",
        ),
        (["figure3a", "--published", "."], "--published does nothing for figure3a; it takes --out: leave it out"),
        (["merge", ".", "--list"], "--list does nothing for merge; it takes --out: leave it out"),
        (["renewals", "--out", "here"], "--out does nothing for renewals: leave it out"),
        (["table1", "--published", "."], "--published does nothing for table1: leave it out"),
        (["table1", "--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_figures_3a_and_3c_need_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    *descents, ours = figure3a((6, 3), steps=(1, 20), subsets=(3, 6))
    assert len(descents) == 4 and all(ours["uniformity"] <= row["uniformity"] + 1e-6 for row in descents)
    rows = figure3c((5, 9), dim=3, repeats=1)
    assert [(row["classes"], row["method"]) for row in rows] == [
        (count, method) for count in (5, 9) for method in ("dense", "column_generation")
    ]
    assert all(row["seconds"] > 0 for row in rows) and "Figure 3c: not available" in capsys.readouterr().out


def test_what_has_no_cells_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["renewals", "--list"]) == 0
    assert "renewals has no cells" in capsys.readouterr().out
