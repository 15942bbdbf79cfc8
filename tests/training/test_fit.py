"""Whole runs of the trainer on the handwritten digits, small and quick."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import Subset

from fastproto.cli import train
from fastproto.data import load_data
from fastproto.training import RunResult, TrainConfig, fit, run
from fastproto.training.callbacks import WriteCheckpoints
from fastproto.training.checkpoint_files import KEY, read_checkpoint
from fastproto.training.classifier import learning_rate_factor, load_classifier
from fastproto.training.config import HeadConfig
from fastproto.training.heads import build_head
from fastproto.training.loaders import Loaders
from fastproto.training.metrics import MetricsFile
from fastproto.training.renewals import RenewAssignment, Schedule

PLAIN = ("config.yaml", "curves.png", "cosines.png", "metrics.csv", "versions.json")


def quick(out: Path, **changes: Any) -> TrainConfig:
    """Two epochs of an MLP: a second or two."""
    config = TrainConfig(out=str(out), progress=False, accelerator="cpu")
    config.model.name, config.optim.epochs = "mlp", 2
    for key, value in changes.items():
        *groups, last = key.split("__")
        target: Any = config
        for group in groups:
            target = getattr(target, group)
        setattr(target, last, value)
    return config


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v != "" and "seconds" not in k} for row in csv.DictReader(file)]


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if name in row]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run that several tests look at; none writes into its folder."""
    return fit(quick(tmp_path_factory.mktemp("finished") / "run"))


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
    assert resolved == quick(result.folder)
    with pytest.raises(ValueError, match="already holds a run"):
        fit(quick(result.folder))


def test_the_saved_assignment_is_the_validated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated: list[torch.Tensor] = []

    class Watch(WriteCheckpoints):
        def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            validated.append(module.head.assignment.clone())  # type: ignore[union-attr,operator]

    monkeypatch.setattr(run, "WriteCheckpoints", Watch)
    # A slow backbone and a fast average: the assignment must really change for this test to mean anything.
    config = quick(tmp_path, head__renewals_per_epoch=3.0, head__dim=3, head__momentum=0.0, optim__epochs=3)
    fit(config)
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(saved["state_dict"]["head.assignment"], validated[-1])
    assert any(column(tmp_path, "assignment/changed"))
    assert saved[KEY]["class_names"] == [str(digit) for digit in range(10)]
    classifier = load_classifier(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(classifier.head.assignment, validated[-1])  # type: ignore[arg-type]


class Stop(Exception):
    """The machine goes down."""


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_resumed_equals_uninterrupted(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"model__name": model, "optim__epochs": 3, "head__renewals_per_epoch": 1.7}
    fit(quick(tmp_path / "whole", **changes))

    class Dies(RenewAssignment):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 25:  # in the middle of the second epoch
                raise Stop
            super().on_train_batch_start(trainer, module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(run, "RenewAssignment", Dies)
        with pytest.raises(Stop):
            fit(quick(tmp_path / "halves", **changes))
    config = quick(tmp_path / "halves", **changes)
    fit(replace(config, resume=str(tmp_path / "halves")))
    assert rows(tmp_path / "halves") == rows(tmp_path / "whole")
    states = [
        read_checkpoint(tmp_path / part / "checkpoints" / "last.ckpt")["state_dict"] for part in ("whole", "halves")
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_resume_into_another_folder(finished: RunResult, tmp_path: Path) -> None:
    first = finished
    last = str(first.folder / "checkpoints" / "last.ckpt")
    # Nothing is left to train: the best checkpoint so far must have come along.
    again = fit(quick(tmp_path / "b", resume=last))
    assert again.test_accuracy == first.test_accuracy
    assert again.checkpoint == tmp_path / "b" / "checkpoints" / "best.ckpt"


def test_a_metrics_file_cut_short_by_a_crash(tmp_path: Path) -> None:
    whole = "epoch,step,train/loss\n0,9,0.5\n1,19,0.25\n"
    for length in range(len(whole) + 1):
        file = tmp_path / "metrics.csv"
        file.write_text(whole[:length])
        kept = MetricsFile(file, keep_before_step=100).rows
        assert [row["step"] for row in kept] == ["9", "19"][: max(whole[:length].count("\n") - 1, 0)]


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
    assert train([*arguments, "--head.dim", "2", "--out", str(tmp_path / "run"), "--progress", "false"]) == 2
    error = capsys.readouterr().err
    sentence = next(line for line in error.splitlines() if line.startswith("error: "))
    assert ".png" in sentence and "Traceback" not in error


@pytest.mark.parametrize("rate", [0.0, 0.37, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("steps", [7, 10])
def test_renewals_fall_evenly(rate: float, steps: int) -> None:
    schedule = Schedule(rate)
    due = [step for step in range(100 * steps) if schedule.due(step, steps)]
    assert 0 not in due
    assert abs(len(due) - rate * 100) <= 1 + rate
    gaps = {b - a for a, b in itertools.pairwise(due)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    if rate == 1.0:
        assert due == list(range(steps, 100 * steps, steps))


@pytest.mark.parametrize("head", ["fixed", "softmax"])
def test_other_heads(head: str, tmp_path: Path) -> None:
    result = fit(quick(tmp_path / head, head__name=head))
    assert result.test_accuracy > 0.7
    assert column(result.folder, "assignment/changed") == []
    assert not (result.folder / "changed.png").exists()


def test_the_sphere_is_drawn_in_three_dimensions(tmp_path: Path) -> None:
    result = fit(quick(tmp_path, head__dim=3))
    assert (result.folder / "sphere.png").stat().st_size > 10_000


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_low_precision(precision: str, tmp_path: Path) -> None:
    result = fit(quick(tmp_path, precision=precision))
    assert result.test_accuracy > 0.7
    state = read_checkpoint(result.checkpoint)["state_dict"]
    assert state["head.class_means"].dtype == state["head.prototypes"].dtype == torch.float32


@pytest.mark.parametrize(("name", "schedule"), [("sgd", "step"), ("sgd", "constant"), ("adamw", "cosine")])
def test_optimisers_and_schedules(name: str, schedule: str, tmp_path: Path) -> None:
    lr = 0.3 if name == "sgd" else 3e-3
    result = fit(quick(tmp_path, optim__name=name, optim__schedule=schedule, optim__lr=lr, optim__clip_norm=5.0))
    assert result.test_accuracy > 0.4
    factors = [learning_rate_factor(quick(tmp_path, optim__schedule=schedule).optim, step, 100) for step in range(100)]
    assert factors[50] == 1 if schedule == "constant" else factors[-1] <= 0.1
    assert all(a < b for a, b in itertools.pairwise(factors[:50]))  # one of two epochs warms up


RANKS = """
import sys
import lightning, torch
from fastproto.training import TrainConfig, classifier, loaders, run

torch.set_num_threads(1)
devices, out = int(sys.argv[1]), sys.argv[2]


def linear(*args, dim, **settings):  # no batch normalisation: its statistics are each rank's own
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, dim, bias=False))


classifier.build_backbone = linear


class OneAfterAnother(loaders.DistributedSampler):
    # One process sees what two ranks see at each step, the first rank's batch before the second's.
    def __iter__(self):
        ranks = [list(run_sampler(self.dataset, 2, rank, seed=self.seed, epoch=self.epoch)) for rank in range(2)]
        for start in range(0, len(ranks[0]), 32):
            for rank in ranks:
                yield from rank[start : start + 32]

    def __len__(self):
        return 2 * -(-len(self.dataset) // 2)


def run_sampler(dataset, world, rank, seed, epoch, base=loaders.DistributedSampler):
    sampler = base(dataset, world, rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return sampler


config = TrainConfig(out=out, progress=False, accelerator="cpu", devices=devices)
config.data.augment, config.data.batch_size = False, 64 // devices
config.optim.epochs, config.optim.name, config.optim.lr, config.head.renewals_per_epoch = 2, "sgd", 0.5, 4.0
config.head.dim, config.head.momentum = 3, 0.0
config.head.initial_assignment, config.head.early_epochs, config.head.early_renewals_per_epoch = "aligned", 0.5, 4.0
config.head.early_alignment = True
if devices == 1:
    loaders.DistributedSampler = OneAfterAnother
run.fit(config)
"""


def test_two_ranks_train_as_one_process(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    for devices in (1, 2):
        command = [sys.executable, str(script), str(devices), str(tmp_path / str(devices))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = tmp_path / "1", tmp_path / "2"
    assert any(column(one, "assignment/changed"))
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
    states = [read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (one, two)]
    assert torch.equal(states[1]["head.assignment"], states[0]["head.assignment"])
    for name in ("backbone.1.weight", "head.class_means", "head.prototypes"):
        torch.testing.assert_close(states[1][name], states[0][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_held_out_samples_are_seen_once_over_all_ranks(world: int) -> None:
    data = load_data("digits")
    held_out = Subset(data.validation, range(67))  # which neither ranks nor batches divide
    seen: list[torch.Tensor] = []
    for rank in range(world):
        loaders = Loaders(TrainConfig(), replace(data, validation=held_out))
        loaders.trainer = SimpleNamespace(world_size=world, global_rank=rank)  # type: ignore[assignment]
        seen += [images.flatten(1) for images, _ in loaders.val_dataloader()]
    together, whole = torch.cat(seen), torch.stack([held_out[i][0].flatten() for i in range(67)])
    assert len(together) == 67 and sorted(together.tolist()) == sorted(whole.tolist())
    loaders = Loaders(TrainConfig(), replace(data, validation=Subset(data.validation, range(world - 1))))
    loaders.trainer = SimpleNamespace(world_size=world, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=f"{world - 1} held-out samples for {world} devices"):
        loaders.val_dataloader()


def test_class_means_may_stay_on_their_rank() -> None:
    config = HeadConfig(sync_class_means=False)
    for name, synced in (("prototype", False), ("fixed", False), ("etf", None)):
        head = build_head(replace(config, name=name, dim=9), tuple("abcdefghij"), seed=0)
        assert getattr(head, "sync_class_means", None) is synced


def test_two_processes_from_the_command_line(tmp_path: Path) -> None:
    # The console script, as Lightning starts the other processes with the same command line.
    command = [str(Path(sys.executable).with_name("fastproto-train")), "--devices", "2", "--accelerator", "cpu"]
    command += ["--optim.epochs", "2", "--model", "mlp", "--progress", "false"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["digits"]
    assert done.stdout.count("test accuracy") == 1
    assert column(tmp_path / "runs" / "digits", "test/accuracy_top1")[0] > 0.6
    for name in PLAIN:
        assert (tmp_path / "runs" / "digits" / name).exists()


def test_checkpoints_are_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(content: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        fit(quick(tmp_path))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_checkpoints_that_are_refused(finished: RunResult, tmp_path: Path) -> None:
    last = finished.folder / "checkpoints" / "last.ckpt"
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(last.read_bytes()[:5000])
    torch.save({"weights": torch.eye(2)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="truncated"):
        fit(quick(tmp_path / "new", resume=str(cut)))
    with pytest.raises(ValueError, match="truncated"):
        load_classifier(cut)
    with pytest.raises(ValueError, match="not written by fastproto-train"):
        load_classifier(tmp_path / "other.ckpt")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        fit(quick(tmp_path / "new", resume=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=r"head\.dim 5 .* this run has 7"):
        fit(quick(tmp_path / "new", resume=str(last), head__dim=7))
    with pytest.raises(ValueError, match="10 classes and this run has 20"):
        fit(quick(tmp_path / "new", resume=str(last), data__name="glyphs", data__num_classes=20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__name": "mnist"}, "unknown data set 'mnist'"),
        ({"model__name": "resnet21"}, "resnet"),
        ({"data__name": "image-folder", "data__root": "/no/such/folder"}, "/no/such/folder"),
        ({"head__prototypes": "/no/such/file.npz"}, "no prototype file"),
        ({"head__dim": 1}, "head.dim is 1; expected at least 2"),
        ({"optim__epochs": 0}, "optim.epochs is 0"),
        ({"precision": "16-mixed"}, "precision is 16-mixed and there is no GPU"),
        ({"optim__lr": float("nan")}, "optim.lr"),
        ({"head__name": "arcface"}, "one of prototype, fixed, softmax"),
    ],
)
def test_settings_that_no_run_can_use(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        fit(quick(tmp_path / "run", **changes))


@pytest.mark.parametrize(
    ("c", "d", "said"), [(6, 5, "simplex"), (7, 5, "opposite"), (10, 5, "opposite"), (11, 5, None)]
)
def test_geometry_note(c: int, d: int, said: str | None) -> None:
    note = run.geometry_note(c, d)
    assert note is None if said is None else said in (note or "")


def test_unknown_configuration_keys() -> None:
    with pytest.raises(ValueError, match=r"unknown configuration key optim\.learning_rate"):
        TrainConfig.from_dict({"optim": {"learning_rate": 1.0}})
    with pytest.raises(ValueError, match=r"did you mean head\.momentum"):
        TrainConfig.from_dict({"head": {"momentun": 0.5}})
    with pytest.raises(ValueError, match="expected a group"):
        TrainConfig.from_dict({"head": 3})
