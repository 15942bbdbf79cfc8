"""Where the metrics of a run go beside metrics.csv: loggers of Lightning, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from fastproto.data.optional import require
from fastproto.training.settings_and_flags import LoggerName, TrainConfig


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Raise ImportError, with the pip command, for a logger whose package is not installed."""
    for name in names:
        if name != "csv":
            require(name, f"the logger {name!r}", extra=name)


def build_loggers(config: TrainConfig, folder: Path, step: int | None) -> list[Logger]:
    """The loggers of ``config.loggers`` but csv; they write into the run folder.

    Args:
        step: optimiser steps done by the checkpoint that the run goes on from; None: a new run.
    """
    built: list[Logger] = []
    if "tensorboard" in config.loggers:
        resumed: dict[str, Any] = {} if step is None else {"purge_step": step}  # hides what the run logged after it
        built.append(TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False, **resumed))
    if "wandb" in config.loggers:
        (folder / "wandb").mkdir(exist_ok=True)  # else its files go to a temporary folder
        built.append(WandbLogger(name=folder.name, save_dir=folder, project="fastproto", config=config.to_dict()))
    return built
