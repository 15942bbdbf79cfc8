"""``fit(config)``: a whole training run, from the data to the pictures."""

from __future__ import annotations

import json
import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

import fastproto
from fastproto.data import DataSplits, load_data
from fastproto.data.optional import require
from fastproto.models import build_backbone
from fastproto.support.atomic_files import write_whole
from fastproto.support.stopping import stopping
from fastproto.training.batch_checks import check_batches
from fastproto.training.build_head import check_head
from fastproto.training.callbacks import EndOtherRanks, WriteCheckpoints
from fastproto.training.checkpoint_files import WholeFileIO, read_checkpoint
from fastproto.training.classifier import Classifier
from fastproto.training.config_files import config_text
from fastproto.training.heads import HEADS
from fastproto.training.initial_assignment import InitialAssignment
from fastproto.training.loaders import Loaders
from fastproto.training.metrics import MetricsFile
from fastproto.training.rank_processes import follow_rank_0, interruptible, start_ranks
from fastproto.training.renewals import RenewAssignment
from fastproto.training.resume import Resumed, check_data, data_facts, open_run
from fastproto.training.run_folder import FACTS, RunFolder
from fastproto.training.run_pictures import draw_pictures
from fastproto.training.settings import TrainConfig


@dataclass(frozen=True)
class RunResult:
    """Where a run's things are and how good its chosen checkpoint is."""

    folder: Path
    checkpoint: Path  # the one chosen on the validation set
    validation_accuracy: float  # top-1 of that checkpoint, in [0, 1]
    test_accuracy: float  # top-1 on the test set, looked at once
    test_accuracy_top5: float


def fit(config: TrainConfig) -> RunResult:
    """Train, choose a checkpoint on the validation set, test it once, draw the pictures.

    Raises:
        ValueError, FileNotFoundError, ImportError: one sentence each: a setting that no run could use, data, prototypes
            or a checkpoint that are missing or do not fit.
    """
    config.check()
    follow_rank_0()
    with _quiet(), _determinism_kept(), RunFolder(config) as place:
        return _fit_quietly(place)


def _fit_quietly(place: RunFolder) -> RunResult:
    config = place.config
    L.seed_everything(config.seed, verbose=False)
    resumed = None if config.resume is None else open_run(config)
    data = load_data(
        config.data.name,
        num_classes=config.data.num_classes,
        image_size=config.data.image_size,
        root=config.data.root,
        fonts=config.data.fonts,
        cache=config.data.cache,
        progress=config.progress,
    )
    module = Classifier.for_data(config, data)
    if resumed is not None:
        check_data(resumed, config, data)
    _check_parts(config, data)
    module.data_facts = data_facts(data)
    folder = stopping.folder = place.claim(None if resumed is None else resumed.step)
    module.config = config = replace(config, out=str(folder), resume=None)
    with interruptible(folder):
        return _run_in(folder, module, data, resumed)


def _run_in(folder: Path, module: Classifier, data: DataSplits, resumed: Resumed | None) -> RunResult:
    """Train, test and draw in a folder that is this run's."""
    config, checkpoint = module.config, None if resumed is None else resumed.checkpoint
    metrics = _metrics(folder, resumed)
    checkpoints = WriteCheckpoints(folder / "checkpoints")
    callbacks: list[L.Callback] = [EndOtherRanks(), InitialAssignment(data), checkpoints]
    if HEADS[config.head.name].renewed:
        callbacks.insert(2, RenewAssignment(config.head, folder / "class_means", config.seed))
    if config.progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    trainer = _trainer(config, folder, metrics, callbacks)
    loaders = Loaders(config, data)
    _write_facts(folder, config, trainer, checkpoint)
    if checkpoint is not None:
        _bring_checkpoints(checkpoint, folder)
    start_ranks(trainer)
    note = geometry_note(len(data.class_names), config.head.dim)
    if HEADS[config.head.name].renewed and note:
        rank_zero_only(print)(note, file=sys.stderr)
    if resumed is not None and resumed.note is not None:
        rank_zero_only(print)(resumed.note, file=sys.stderr)
    trainer.fit(module, loaders, ckpt_path=checkpoint, weights_only=True)
    folder = trainer.strategy.broadcast(folder)
    best = folder / "checkpoints" / "best.ckpt"
    chosen = read_checkpoint(best)["state_dict"] if trainer.is_global_zero else None
    module.load_state_dict(trainer.strategy.broadcast(chosen))  # type: ignore[arg-type]  # None off rank 0
    (tested,) = trainer.test(module, loaders, verbose=False)
    result = RunResult(folder, best, checkpoints.best[0], tested["test/accuracy_top1"], tested["test/accuracy_top5"])
    if trainer.is_global_zero:
        draw_pictures(folder, data)
    trainer.strategy.barrier()
    stopping.done = True
    return result


def _metrics(folder: Path, resumed: Resumed | None) -> MetricsFile:
    if resumed is None:
        return MetricsFile(folder / "metrics.csv")
    return MetricsFile(folder / "metrics.csv", resumed.step, source=resumed.run / "metrics.csv")


def _trainer(config: TrainConfig, folder: Path, metrics: MetricsFile, callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        max_epochs=config.optim.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=config.precision,
        gradient_clip_val=config.optim.clip_norm or None,
        logger=metrics,
        callbacks=callbacks,
        plugins=[WholeFileIO()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic=config.deterministic,
    )


def _check_parts(config: TrainConfig, data: DataSplits) -> None:
    """Find out that a backbone, a head or its files do not fit before there is a run folder."""
    require("matplotlib", "the pictures of a run")
    for part in (data.train, data.validation, data.test):
        part.check()
    gpus = 0 if config.accelerator == "cpu" else torch.cuda.device_count()
    if config.devices > gpus and (gpus or config.accelerator == "gpu"):
        raise ValueError(
            f"accelerator is {config.accelerator} with {config.devices} devices and this machine has {gpus} GPUs; "
            "expected no more devices than there are: use --accelerator cpu or fewer --devices"
        )
    if config.precision == "16-mixed" and not gpus:
        raise ValueError("precision is 16-mixed and there is no GPU to train on; expected bf16-mixed on the CPU")
    with torch.device("meta"):
        backbone = build_backbone(
            config.model.name,
            channels=data.preprocessing.channels,
            image_size=data.preprocessing.image_size,
            dim=config.head.dim,
        )
    check_batches(config, data, backbone)
    check_head(config.head, data.class_names)


@rank_zero_only
def _bring_checkpoints(resumed: Path, folder: Path) -> None:
    """Where a run goes on in another folder, its best checkpoint comes along and the one that it goes on from."""
    for name, source in (("best.ckpt", resumed.parent / "best.ckpt"), ("last.ckpt", resumed)):
        here = folder / "checkpoints" / name
        if source.is_file() and not here.exists():
            data = source.read_bytes()
            write_whole(here, lambda file, data=data: file.write_bytes(data))  # type: ignore[misc]


def geometry_note(num_classes: int, dim: int) -> str | None:
    """One line for a (C, D) whose prototypes leave an assignment little or nothing to express."""
    if num_classes <= dim + 1:
        return (
            f"note: {num_classes} classes in {dim} dimensions are a simplex, all pairs equally far apart: "
            "an assignment expresses nothing there"
        )
    if num_classes <= 2 * dim:
        return (
            f"note: with {num_classes} classes in {dim} dimensions an assignment only chooses opposite classes; "
            f"more structure needs a dimension below {num_classes / 2:g}"
        )
    return None


@rank_zero_only
def _write_facts(folder: Path, config: TrainConfig, trainer: L.Trainer, resumed: Path | None) -> None:
    """The facts first: they say that the folder is a run's, and where a run that is killed soon has begun."""
    facts = {
        "fastproto": fastproto.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": L.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if trainer.strategy.root_device.type == "cuda" else "cpu",
        "world_size": trainer.world_size,
        "command": sys.argv,
        "resumed": None if resumed is None else str(resumed.resolve()),
    }
    write_whole(folder / FACTS, lambda file: file.write_text(json.dumps(facts, indent=2) + "\n"))
    text = config_text(config)
    write_whole(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what Lightning says to developers of training loops; its errors and its progress bar stay."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"lightning\.")
        warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")
        warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _determinism_kept() -> Iterator[None]:
    """Lightning sets torch's deterministic algorithms for the whole process: what follows a run has them as before."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
