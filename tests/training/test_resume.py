"""A resumed run takes or refuses what it is asked for; a refused one leaves everything as it was."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from fastproto.cli import train
from fastproto.training import RunResult, TrainConfig, fit
from fastproto.training.checkpoint_files import KEY, read_checkpoint
from fastproto.training.parse_settings import OPTIONS, flatten
from fastproto.training.resume import open_run
from fastproto.training.resume_rules import RULES, Rule, rule_of

pytestmark = pytest.mark.usefixtures("no_pictures")

OTHER: dict[str, str] = {
    "model.name": "cnn",
    "model.weights": "other.pth",
    "model.batchnorm": "true",
    "head.name": "fixed",
    "head.dim": "4",
    "head.prototypes": "other.npz",
    "head.effort": "best",
    "head.words": "other.txt",
    "head.trained": "other",
    "head.means": "official",
    "head.initial_assignment": "features",
    "head.initial_samples": "7",
    "head.early_epochs": "0.5",
    "head.early_renewals_per_epoch": "3",
    "head.early_alignment": "true",
    "optim.name": "sgd",
    "seed": "1",
    "precision": "bf16-mixed",
    "name": "other",
    "data.image_size": "16",
    "data.name": "glyphs",
}


@pytest.fixture
def run(finished: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def metrics(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def resume(run: Path, *options: str) -> int:
    return train(["--resume", str(run), *options])


def test_every_setting_has_a_rule() -> None:
    assert set(RULES) <= set(OPTIONS), "a rule without a setting"
    assert {key for key in OPTIONS if rule_of(key) is Rule.REFUSED} <= set(OTHER)
    assert rule_of("head.of_a_later_version") is Rule.REFUSED


@pytest.mark.parametrize("setting", OTHER)
def test_a_refused_setting_changes_nothing(setting: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(run.parent)
    assert resume(run, "--optim.epochs", "3", f"--{setting}", OTHER[setting]) == 2
    error = capsys.readouterr().err
    assert setting in error and error.count("\n") == 1
    assert tree(run.parent) == before
    assert resume(run, f"--{setting}", OTHER[setting], "--out", str(run.parent / "new")) == 2
    assert tree(run.parent) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optim.epochs", "1"], "optim.epochs is 1 and .* has done 2"),
        (["--optim.lr", "0.5"], "optim.lr is 0.5 .* no epoch is left"),
        (["--optim.epochs", "3", "--devices", "2000"], "2000 devices"),
        (["--optim.epochs", "3", "--out", "taken"], "taken holds config.yaml, which a run would overwrite"),
    ],
)
def test_what_cannot_be_done_is_refused(
    options: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "taken").mkdir()
    shutil.copy(run / "config.yaml", run.parent / "taken")
    before = tree(run.parent)
    assert resume(run, *options) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert tree(run.parent) == before


def test_without_best_ckpt_there_must_be_an_epoch_left(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "best.ckpt").unlink()
    before = tree(run.parent)
    assert resume(run, "--optim.epochs", "2") == 2
    error = capsys.readouterr().err
    assert "best.ckpt is not there and no epoch is left to choose one" in error and error.count("\n") == 1
    assert tree(run.parent) == before


def test_what_is_taken_is_used_and_recorded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        "optim.epochs": 3,
        "optim.lr": 0.001,
        "optim.weight_decay": 0.5,
        "data.batch_size": 32,
        "head.renewals_per_epoch": 2.0,
        "head.momentum": 0.5,
        "data.augment": "none",
    }
    assert resume(run, *(f"--{key}={str(value).lower()}" for key, value in asked.items())) == 0
    note = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("note: after epoch 2"))
    assert all(key in note for key in asked)
    recorded = flatten(yaml.safe_load((run / "config.yaml").read_text()))
    content = read_checkpoint(run / "checkpoints" / "last.ckpt")
    for where in (recorded, flatten(content[KEY]["config"])):
        assert {key: where[key] for key in asked} == asked
    groups = content["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert [group["initial_lr"] for group in groups] == content["lr_schedulers"][0]["base_lrs"] == [0.001, 0.001]
    # Two epochs of 19 steps and one of 38: the cosine ends at zero all the same, and two renewals fall in the epoch.
    assert content["global_step"] == 2 * 19 + 38
    assert [group["lr"] for group in groups] == [0.0, 0.0]
    rows = metrics(run / "metrics.csv")
    assert sum(row["assignment/changed"] != "" and int(row["step"]) >= 38 for row in rows) == 2
    seconds = [float(row["seconds"]) for row in rows]
    assert seconds == sorted(seconds)
    assert [int(row["epoch"]) for row in rows if row["val/loss"]] == [0, 1, 2]


def test_runs_from_before_powers_go_on_with_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, config = run / "checkpoints" / "last.ckpt", run / "config.yaml"
    content, values = read_checkpoint(last), yaml.safe_load(config.read_text())
    for head in (content[KEY]["config"]["head"], values["head"]):
        del head["power"]
        head["loss"] = "eq6"
    torch.save(content, last)
    config.write_text(yaml.safe_dump(values))
    assert resume(run, "--optim.epochs", "3", "--head.loss", "power", "--head.power", "0.5") == 0
    note = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("note: after epoch 2"))
    assert "head.loss power (was eq6), head.power 0.5 (was None)" in note


def test_a_power_stays_unless_another_one_is_given(run: Path, tmp_path: Path) -> None:
    config = TrainConfig(resume=str(run), out=str(tmp_path / "on"), progress=False, accelerator="cpu")
    config.model.name, config.optim.epochs = "mlp", 3
    before = yaml.safe_load((run / "config.yaml").read_text())["head"]["power"]
    assert before == 2.0 and open_run(config).config.head.power == before
    assert "head.power" not in open_run(config).changed
    config.head.power = "auto"
    assert "head.power" not in open_run(config).changed
    config.head.power = 0.7
    assert open_run(config).changed["head.power"] == (before, 0.7)
    config.head.loss, config.head.power = "eq6", None
    assert open_run(config).config.head.power is None


def test_the_same_settings_are_no_change(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = flatten(yaml.safe_load((run / "config.yaml").read_text()))
    given = [f"--{key}={value}" for key, value in values.items() if value is not None and key != "out"]
    before = tree(run / "checkpoints")
    assert resume(run / "checkpoints" / "last.ckpt", *given, "--config", str(run / "config.yaml")) == 2
    assert "already holds a run" in capsys.readouterr().err  # the file names the folder of the original
    assert resume(run / "checkpoints" / "last.ckpt", *given, "--data.num_classes", "10") == 0
    assert "after epoch" not in capsys.readouterr().err
    assert tree(run / "checkpoints") == before
    assert yaml.safe_load((run / "config.yaml").read_text())["out"] == str(run)


def test_in_another_folder_the_rows_come_along(run: Path) -> None:
    before = tree(run)
    assert resume(run, "--out", "elsewhere") == 0
    assert tree(run) == before
    old, new = metrics(run / "metrics.csv"), metrics(Path("elsewhere/metrics.csv"))
    assert resume(Path("elsewhere")) == 0  # it has all that a run has
    assert new[:-1] == old[:-1] and float(new[-1]["seconds"]) >= float(old[-2]["seconds"])


def test_from_python_as_from_the_command_line(run: Path) -> None:
    config = TrainConfig(resume=str(run), progress=False, accelerator="cpu")
    before = tree(run)
    with pytest.raises(ValueError, match=r"model\.name mlp and this run has cnn"):
        fit(config)
    config.model.name = "mlp"
    with pytest.raises(ValueError, match=r"head\.dim 5 and this run has 9"):
        config.head.dim = 9
        fit(config)
    assert tree(run) == before
    lone = Path(shutil.copy(run / "checkpoints" / "last.ckpt", "lone.ckpt"))
    config.head.dim, config.resume = 5, str(lone)
    with pytest.raises(ValueError, match="lies in no run folder"):
        fit(config)


def test_damaged_files_of_a_run_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, damage, message in (
        ("config.yaml", b"", "config.yaml is empty"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml line 1 is not UTF-8"),
        ("config.yaml", b"optim:\n  lr: 1\n  lr: 2\n", "line 3: optim.lr is repeated"),
        ("metrics.csv", b"a,b\n1,2\n", "metrics.csv is not the metrics file of a run"),
        ("checkpoints/last.ckpt", b"half", "last.ckpt is truncated"),
    ):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(damage)
        before = tree(run)
        assert resume(run, "--optim.epochs", "3") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert tree(run) == before
        (run / name).write_bytes(whole)


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small image folder and a run of one epoch on it."""
    top = tmp_path_factory.mktemp("folders")
    for part in ("train", "val", "test"):
        for label, name in enumerate("ab"):
            (top / "set" / part / name).mkdir(parents=True)
            for number in range(4):
                image = Image.new("RGB", (8, 8), (200 * label, 20 * number, 90))
                image.save(top / "set" / part / name / f"{number}.png")
    config = TrainConfig(out=str(top / "run"), progress=False, accelerator="cpu")
    config.data.name, config.data.root = "image-folder", str(top / "set")
    config.model.name, config.optim.epochs, config.head.dim = "mlp", 1, 2
    torch.manual_seed(0)
    fit(config)
    yield top


def one_more(root: Path) -> None:
    shutil.copy(root / "train" / "a" / "0.png", root / "train" / "a" / "9.png")


def other_pixels(root: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "train" / "b" / "2.png")


def other_order(root: Path) -> None:
    (root / "classes.tsv").write_text("a\tb\nb\ta\n")


def third_class(root: Path) -> None:
    shutil.copytree(root / "train" / "a", root / "train" / "c")


def larger(root: Path) -> None:
    for part in ("train", "val", "test"):
        for path in (root / part).rglob("*.png"):
            Image.new("RGB", (9, 9)).save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_more, "8 train samples and this run has 9"),
        (other_pixels, "other train samples"),
        (other_order, "class 0 named 'a' and this run has 'b' there"),
        (third_class, "2 classes and this run has 3"),
        (larger, "image_size 8 and this run has 9"),
    ],
)
def test_other_data_are_refused(change: Any, message: str, folders: Path, tmp_path: Path, capsys: Any) -> None:
    root, run = shutil.copytree(folders / "set", tmp_path / "set"), shutil.copytree(folders / "run", tmp_path / "run")
    change(root)
    before = tree(tmp_path)
    assert resume(run, "--optim.epochs", "2", "--data.root", str(root)) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # after what the folder has to say about itself
    assert message in error and error.startswith("error: ")
    assert tree(tmp_path) == before


def test_a_moved_data_set_is_the_same(folders: Path, tmp_path: Path) -> None:
    root, run = shutil.copytree(folders / "set", tmp_path / "moved"), shutil.copytree(folders / "run", tmp_path / "run")
    assert resume(run, "--data.root", str(root)) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["root"] == str(root)


def test_checkpoints_without_a_record_of_the_data(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = run / "checkpoints" / "last.ckpt"
    content = read_checkpoint(last)
    del content[KEY]["data"]
    torch.save(content, last)
    assert resume(run, "--data.num_classes", "10") == 2
    assert "does not say what its data were" in capsys.readouterr().err
    assert resume(run) == 0


def test_a_run_goes_on_with_pictures_in_memory(folders: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(folders / "set"), "--optim.epochs", "2"]
    states = []
    for cache in ("true", "false"):  # the first epoch was run with auto
        run = shutil.copytree(folders / "run", tmp_path / cache)
        assert resume(run, *options, "--data.cache", cache) == 0
        states.append(read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
