"""``fit(config)``: a whole training run, from the data to the pictures."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

import fastproto
from fastproto.data import DataSplits, load_data
from fastproto.data.optional import require
from fastproto.models import inner_network
from fastproto.support.atomic_files import write_whole
from fastproto.support.stopping import stopping
from fastproto.training.batch_checks import check_batches
from fastproto.training.build_head import check_head
from fastproto.training.callbacks import EndOtherRanks, WriteCheckpoints, WriteConfig, write_config
from fastproto.training.checkpoint_files import WholeFileIO, read_checkpoint
from fastproto.training.class_accuracy import WriteClasses
from fastproto.training.classifier import Classifier, backbone_of
from fastproto.training.heads import HEADS
from fastproto.training.initial_assignment import InitialAssignment
from fastproto.training.loaders import Loaders
from fastproto.training.loggers import build_loggers, check_loggers
from fastproto.training.metrics import MetricsFile
from fastproto.training.pretrained import fitting_state
from fastproto.training.rank_processes import follow_rank_0, interruptible, start_ranks
from fastproto.training.renewals import RenewAssignment
from fastproto.training.resume import Resumed, check_data, data_facts, open_run
from fastproto.training.run_folder import FACTS, RunFolder
from fastproto.training.run_pictures import draw_pictures
from fastproto.training.settings_and_flags import TrainConfig

_COMPILER = "clang++" if sys.platform == "darwin" else "g++"  # what torch.compile looks for


@dataclass(frozen=True)
class RunResult:
    """The folder of a run, and the accuracies of its best checkpoint as fractions in [0, 1]."""

    folder: Path
    checkpoint: Path  # the one chosen on the validation set
    validation_accuracy: float  # top-1
    test_accuracy: float  # top-1; the test set is evaluated once
    test_accuracy_top5: float


def fit(config: TrainConfig, *, classes: int | None = None) -> RunResult:
    """Train, choose a checkpoint on the validation set, test it once, draw the pictures.

    Args:
        config: the settings; with ``resume`` an earlier run is continued.
        classes: how many classes the data must have, for example those of a recipe; None: any number.

    Raises:
        ValueError: a setting that no run can use; data, prototypes or a checkpoint that do not fit; a run folder that
            is in use or cannot be written.
        FileNotFoundError: missing data, prototypes or checkpoint.
        ImportError: a missing package.
        KeyboardInterrupt: Ctrl-C; once training has begun, its message is the run folder.
    """
    config.check()
    follow_rank_0()
    with _quiet(), _restore_determinism(), RunFolder(config) as place:
        return _fit(place, classes)


def _fit(place: RunFolder, classes: int | None) -> RunResult:
    config = place.config
    L.seed_everything(config.seed, verbose=False)
    resumed = None if config.resume is None else open_run(config)
    config = config if resumed is None else resumed.config
    data = load_data(
        config.data.name,
        num_classes=config.data.num_classes,
        image_size=config.data.image_size,
        root=config.data.root,
        fonts=config.data.fonts,
        lists=config.data.lists,
        download=config.data.download,
        validation=config.data.validation,
        imbalance=config.data.imbalance,
        augment=config.data.augment,
        cache=config.data.cache,
        progress=config.progress,
    )
    if classes not in (None, len(data.class_names)):
        raise ValueError(
            f"the recipe is for {classes} classes and {config.data.name} has {len(data.class_names)}; expected other "
            f"data, or --data.num_classes {len(data.class_names)} to use the recipe for these"
        )
    module = Classifier.for_data(config, data)
    if resumed is not None:
        check_data(resumed, config, data)
    _check_parts(config, data)
    if resumed is not None:
        module.pretrained = None
    elif config.model.weights is not None:
        _check_pretrained(config, data)
    module.data_facts = data_facts(data)
    folder = stopping.folder = place.claim(None if resumed is None else resumed.step)
    module.config = config = replace(config, out=str(folder), resume=None)
    with interruptible(folder):
        return _run_in(folder, module, data, resumed)


def _run_in(folder: Path, module: Classifier, data: DataSplits, resumed: Resumed | None) -> RunResult:
    """Train, test and draw the pictures, in the folder that this run has claimed."""
    config, checkpoint = module.config, None if resumed is None else resumed.checkpoint
    metrics = _metrics(folder, resumed)
    checkpoints = WriteCheckpoints(folder / "checkpoints")
    callbacks: list[L.Callback] = [EndOtherRanks(), WriteConfig(folder), InitialAssignment(data), checkpoints]
    callbacks.append(WriteClasses(folder, data))
    if HEADS[config.head.name].renewed:
        callbacks.insert(3, RenewAssignment(config.head, folder / "class_means", config.seed))
    if config.progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    others = build_loggers(config, folder, None if resumed is None else resumed.step)
    trainer = _trainer(config, folder, [metrics, *others], callbacks)
    loaders = Loaders(config, data)
    _write_facts(folder, config, trainer, checkpoint)
    if checkpoint is not None:
        _copy_checkpoints(checkpoint, folder)
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
    module.load_state_dict(trainer.strategy.broadcast(chosen))  # type: ignore[arg-type]  # None except on rank 0
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


def _trainer(config: TrainConfig, folder: Path, loggers: list[Logger], callbacks: list[L.Callback]) -> L.Trainer:
    return L.Trainer(
        max_epochs=config.optim.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy="ddp" if config.devices * config.num_nodes > 1 else "auto",
        precision=config.precision,
        gradient_clip_val=config.optim.clip_norm or None,
        logger=loggers,
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
    """Raise an error if the backbone, the head or its files do not fit, before the run folder is made."""
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
    check_loggers(config.loggers)
    if config.compile and not gpus and shutil.which((os.environ.get("CXX") or _COMPILER).split()[0]) is None:
        raise ValueError(
            f"compile is true and there is no C++ compiler, which torch.compile needs on the CPU; expected {_COMPILER} "
            "or the one that the environment variable CXX names: install it, or leave --compile out"
        )
    with torch.device("meta"):
        backbone = backbone_of(config, data.preprocessing)
    check_batches(config, data, backbone)
    check_head(config.head, data.class_names)


def _check_pretrained(config: TrainConfig, data: DataSplits) -> None:
    """Raise what loading ``model.weights`` into the backbone would."""
    assert config.model.weights is not None
    with torch.device("meta"):
        network = inner_network(backbone_of(config, data.preprocessing))
    fitting_state(network, config.model.weights, config.model.name)


@rank_zero_only
def _copy_checkpoints(resumed: Path, folder: Path) -> None:
    """Copy best.ckpt and the resumed checkpoint into the folder, if the run continues in another one."""
    for name, source in (("best.ckpt", resumed.parent / "best.ckpt"), ("last.ckpt", resumed)):
        here = folder / "checkpoints" / name
        if source.is_file() and not here.exists():
            data = source.read_bytes()
            write_whole(here, lambda file, data=data: file.write_bytes(data))  # type: ignore[misc]


def geometry_note(num_classes: int, dim: int) -> str | None:
    """One line if C and D leave the assignment little or no effect; None otherwise."""
    if num_classes <= dim + 1:
        return (
            f"note: {num_classes} classes in {dim} dimensions form a simplex with all pairs equally far apart: "
            "the assignment has no effect"
        )
    if num_classes <= 2 * dim:
        return (
            f"note: with {num_classes} classes in {dim} dimensions the assignment only chooses opposite classes; "
            f"more structure needs a dimension below {num_classes / 2:g}"
        )
    return None


@rank_zero_only
def _write_facts(folder: Path, config: TrainConfig, trainer: L.Trainer, resumed: Path | None) -> None:
    """Write config.yaml, and before it versions.json: that marks a run folder, and names the resumed checkpoint."""
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
    write_config(folder, config)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's hints and warnings, but not its errors and its progress bar."""
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
def _restore_determinism() -> Iterator[None]:
    """Restore torch's deterministic-algorithms setting after a run: Lightning changes it for the whole process."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
