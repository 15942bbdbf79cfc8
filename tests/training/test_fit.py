"""Whole runs of the trainer on the handwritten digits, small and quick."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DistributedSampler

from fastproto.cli import train
from fastproto.cli.train_command import parse_train
from fastproto.training import RunResult, TrainConfig, classifier, fit, loaders, run
from fastproto.training.callbacks import WriteCheckpoints
from fastproto.training.checkpoint_files import KEY, read_checkpoint
from fastproto.training.classifier import learning_rate_factor, load_classifier

from . import two_ranks
from .helpers import PLAIN, column, quick, rows, state, trained_and_resumed


def test_a_run_and_its_folder(finished: RunResult) -> None:
    result = finished
    assert result.test_accuracy > 0.7  # two epochs; chance is 0.1
    for name in PLAIN:
        assert (result.folder / name).stat().st_size > 0
    assert column(result.folder, "test/accuracy_top1") == [pytest.approx(result.test_accuracy)]
    assert "test/accuracy_top1" in rows(result.folder)[-1]
    assert not torch.are_deterministic_algorithms_enabled()  # as before the run
    assert max(column(result.folder, "val/accuracy_top1")) == pytest.approx(result.validation_accuracy)
    assert column(result.folder, "train/loss")[-1] < column(result.folder, "train/loss")[0]
    assert column(result.folder, "assignment/certified") == [1.0]
    resolved = TrainConfig.from_dict(yaml.safe_load((result.folder / "config.yaml").read_text()))
    assert resolved == quick(result.folder, head__power=2.0)  # what auto is for ten classes in five dimensions
    with pytest.raises(ValueError, match="already holds a run"):
        fit(quick(result.folder))


def test_resume_into_another_folder(finished: RunResult, tmp_path: Path) -> None:
    first = finished
    last = str(first.folder / "checkpoints" / "last.ckpt")
    # Nothing is left to train: the best checkpoint so far must have come along.
    again = fit(quick(tmp_path / "b", resume=last))
    assert again.test_accuracy == first.test_accuracy
    assert again.checkpoint == tmp_path / "b" / "checkpoints" / "best.ckpt"


def test_an_unreadable_image_in_a_worker_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("train", "val"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(12):
                Image.new("RGB", (16, 16), "red" if name == "a" else "blue").save(
                    tmp_path / part / name / f"{index}.png"
                )
    for file in (tmp_path / "train" / "a").iterdir():
        file.write_bytes(file.read_bytes()[:40])
    (tmp_path / "train" / "a" / "0.png").write_bytes((tmp_path / "val" / "a" / "0.png").read_bytes())
    arguments = ["--data", "image-folder", "--data.root", str(tmp_path), "--data.workers", "1", "--model", "mlp"]
    arguments += ["--data.cache", "false"]
    assert train([*arguments, "--head.dim", "2", "--out", str(tmp_path / "run"), "--progress", "false"]) == 2
    error = capsys.readouterr().err
    sentence = next(line for line in error.splitlines() if line.startswith("error: "))
    assert ".png" in sentence and "Traceback" not in error


@pytest.mark.parametrize("head", ["fixed", "softmax"])
def test_other_heads(head: str, tmp_path: Path) -> None:
    result = fit(quick(tmp_path / head, head__name=head))
    assert result.test_accuracy > 0.7
    assert column(result.folder, "assignment/changed") == []
    assert not (result.folder / "changed.png").exists()


@pytest.mark.parametrize("power", [None, "auto"])
def test_the_power_auto_is_written_as_a_number(power: str | None, tmp_path: Path, no_pictures: None) -> None:
    result = fit(quick(tmp_path / "run", head__loss="power", head__power=power, head__dim=3))
    assert yaml.safe_load((result.folder / "config.yaml").read_text())["head"]["power"] == 0.5
    assert read_checkpoint(result.checkpoint)[KEY]["config"]["head"]["power"] == 0.5
    again = fit(
        quick(
            tmp_path / "again",
            head__loss="power",
            head__power=power,
            head__dim=3,
            resume=str(result.folder),
            optim__epochs=3,
        )
    )
    assert yaml.safe_load((again.folder / "config.yaml").read_text())["head"]["power"] == 0.5


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_low_precision(precision: str, tmp_path: Path, no_pictures: None) -> None:
    result = fit(quick(tmp_path, precision=precision))
    assert result.test_accuracy > 0.7
    state = read_checkpoint(result.checkpoint)["state_dict"]
    assert state["head.class_means"].dtype == state["head.prototypes"].dtype == torch.float32


@pytest.mark.parametrize("head", ["softmax", "prototype"])
def test_pictures_in_low_precision(head: str, tmp_path: Path) -> None:
    """NumPy has no bfloat16."""
    run = fit(quick(tmp_path, precision="bf16-true", head__name=head, head__dim=3, optim__epochs=1)).folder
    assert (run / "cosines.png").is_file() and (run / "sphere.png").is_file() == (head == "prototype")


@pytest.mark.parametrize("schedule", ["step", "constant", "cosine"])
def test_sgd_and_schedules(schedule: str, tmp_path: Path, no_pictures: None) -> None:
    if schedule != "cosine":  # all other runs
        optim = {"optim__name": "sgd", "optim__lr": 0.3, "optim__clip_norm": 5.0}
        assert fit(quick(tmp_path, optim__schedule=schedule, **optim)).test_accuracy > 0.4
    factors = [learning_rate_factor(quick(tmp_path, optim__schedule=schedule).optim, step, 100) for step in range(100)]
    assert factors[50] == 1 if schedule == "constant" else factors[-1] <= 0.1
    assert all(a < b for a, b in itertools.pairwise(factors[:50]))  # one of two epochs warms up


def test_what_is_saved_is_what_was_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[torch.Tensor] = []

    class Watch(WriteCheckpoints):
        def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            validated.append(module.head.assignment.clone())  # type: ignore[union-attr,operator]

    monkeypatch.setattr(run, "WriteCheckpoints", Watch)
    # A slow backbone and a fast average: the assignment must really change for this test to mean anything.
    config = quick(tmp_path, head__renewals_per_epoch=3.0, head__dim=3, head__momentum=0.0, optim__epochs=3)
    fit(config)
    assert (tmp_path / "sphere.png").stat().st_size > 10_000
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(saved["state_dict"]["head.assignment"], validated[-1])
    assert any(column(tmp_path, "assignment/changed"))
    assert saved[KEY]["class_names"] == [str(digit) for digit in range(10)]
    classifier = load_classifier(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(classifier.head.assignment, validated[-1])  # type: ignore[arg-type]


def test_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> None:
    trained_and_resumed(tmp_path, monkeypatch, model__name="cnn", head__renewals_per_epoch=1.7)


class OneAfterAnother(DistributedSampler[Any]):
    """One process sees what two ranks see at each step, the first rank's batch before the second's."""

    def __iter__(self) -> Iterator[int]:
        ranks = []
        for rank in range(2):
            sampler: DistributedSampler[Any] = DistributedSampler(self.dataset, 2, rank, shuffle=True, seed=self.seed)
            sampler.set_epoch(self.epoch)
            ranks.append(list(sampler))
        for start in range(0, len(ranks[0]), 32):
            for own in ranks:
                yield from own[start : start + 32]

    def __len__(self) -> int:
        return 2 * -(-len(self.dataset) // 2)  # type: ignore[arg-type]


def test_the_installed_command_trains_on_two_ranks(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("fastproto-train"), *two_ranks.OPTIONS, "--optim.epochs", "1"]
    options = ["--devices", "2", "--data.batch_size", "32", "--out", "run"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1 and all((tmp_path / "run" / name).exists() for name in PLAIN)


def test_two_ranks_train_as_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> None:
    command = [sys.executable, two_ranks.__file__, *two_ranks.OPTIONS, "--devices", "2", "--data.batch_size", "32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["digits"]
    assert done.stdout.count("test accuracy") == 1
    one, two = tmp_path / "one", tmp_path / "runs" / "digits"
    assert all((two / name).exists() for name in PLAIN)
    monkeypatch.setattr(classifier, "build_backbone", two_ranks.linear)
    monkeypatch.setattr(loaders, "DistributedSampler", OneAfterAnother)
    fit(parse_train([*two_ranks.OPTIONS, "--out", str(one)]))
    assert any(column(one, "assignment/changed"))
    assert (two / "classes.csv").read_text() == (one / "classes.csv").read_text()
    for name in (
        "train/loss",
        "val/loss",
        "val/accuracy_top1",
        "assignment/objective",
        "assignment/changed",
        "assignment/turns",
        "test/accuracy_top1",
    ):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-4), name
    states = [state(folder) for folder in (one, two)]
    assert torch.equal(states[1]["head.assignment"], states[0]["head.assignment"])
    for name in ("backbone.1.weight", "head.class_means", "head.prototypes"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-4, atol=1e-5)
