"""Loggers beside metrics.csv, and the options of a run that make it faster."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch

from fastproto.training import RunResult, fit
from fastproto.training.classifier import load_classifier

from .helpers import column, quick, state

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_tensorboard_holds_what_metrics_csv_holds(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(quick(tmp_path / "run", loggers=["csv", "tensorboard"]))
    fit(quick(tmp_path / "run", loggers=["tensorboard"], optim__epochs=3, resume=str(tmp_path / "run")))
    found = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("train/loss", "val/accuracy_top1", "assignment/objective"):
        assert [event.value for event in found.Scalars(name)] == pytest.approx(column(tmp_path / "run", name))
    assert len(column(tmp_path / "run", "train/loss")) == 3


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"the logger '{name}' needs {name}.*pip install 'fastproto\[{name}\]'"):
        fit(quick(tmp_path / "run", loggers=[name]))
    assert not (tmp_path / "run").exists()


def test_channels_last_changes_the_layout_alone(tmp_path: Path) -> None:
    for name, last in (("last", True), ("first", False)):
        fit(quick(tmp_path / name, model__name="cnn", optim__epochs=1, channels_last=last))
    kernel = load_classifier(tmp_path / "last").backbone.get_parameter("convolutions.0.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    one, two = column(tmp_path / "last", "train/loss"), column(tmp_path / "first", "train/loss")
    assert one == pytest.approx(two, rel=1e-2)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_run_trains_like_any_other(mode: str, finished: RunResult, tmp_path: Path) -> None:
    few_shapes = {"head__initial_assignment": "aligned", "data__batch_size": 2000}
    fit(quick(tmp_path / "plain", **few_shapes))
    fit(quick(tmp_path / "compiled", compile=True, compile_mode=mode, **few_shapes))
    for name in ("train/loss", "val/loss"):
        assert column(tmp_path / "compiled", name) == pytest.approx(column(tmp_path / "plain", name), rel=1e-3)
    assert state(tmp_path / "compiled").keys() == state(finished.folder).keys()


def test_compiling_needs_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert shutil.which("no-such-compiler") is None
    with pytest.raises(ValueError, match=r"there is no C\+\+ compiler, which torch.compile needs on the CPU"):
        fit(quick(tmp_path / "run", compile=True))
    assert not (tmp_path / "run").exists()
