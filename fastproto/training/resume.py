"""Checks of a resumed run, made before anything is written: each changed setting is taken or refused.

The checkpoint holds the settings and the data digests of the earlier run, the configuration the settings of this one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastproto.data import DataSplits
from fastproto.data.splits import LabelledImages
from fastproto.functional import power_for
from fastproto.training.checkpoint_files import KEY, PartFacts, find_checkpoint, read_checkpoint
from fastproto.training.classifier import Classifier
from fastproto.training.config_files import run_of
from fastproto.training.metrics import MetricsFile
from fastproto.training.parse_settings import flatten
from fastproto.training.resume_rules import PATHS, SILENT, Rule, rule_of
from fastproto.training.settings_and_flags import TrainConfig

Changes = dict[str, tuple[object, object]]  # settings that differ, by key: (before, now)


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a run continues from."""

    checkpoint: Path
    run: Path  # the folder it lies in
    content: dict[str, Any]
    config: TrainConfig  # the settings from here on
    changed: Changes
    epochs: int  # completed

    @property
    def step(self) -> int:
        """Completed optimiser steps."""
        return int(self.content["global_step"])

    @property
    def note(self) -> str | None:
        """One line that lists the changed settings; None: there is nothing to report."""
        return _note(self.changed, self.epochs)


def open_run(config: TrainConfig) -> Resumed:
    """Open the checkpoint that ``config.resume`` names, if the settings can continue it. Nothing is written.

    Raises:
        FileNotFoundError: no such run or checkpoint.
        ValueError: a damaged checkpoint, a setting that a resumed run cannot change, or fewer epochs than are done.
    """
    assert config.resume is not None
    path = find_checkpoint(config.resume)
    content = read_checkpoint(path)
    run, earlier = run_of(path), TrainConfig.from_dict(content[KEY]["config"])
    new = _resolved(config, content["state_dict"].get("head.prototypes"))
    changed = changes(earlier, new)
    for key, (before, now) in changed.items():
        if rule_of(key) is Rule.REFUSED:
            raise ValueError(
                f"{path} was made with {key} {before} and this run has {now}; a resumed run cannot change it: "
                "leave it as it was, or start a new run without --resume"
            )
    done = int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    if new.optim.epochs < done:
        raise ValueError(
            f"optim.epochs is {new.optim.epochs} and {path} has done {done}; expected at least {done} "
            f"(more to go on training, {done} to test what is there)"
        )
    idle = [key for key in changed if key.startswith(("head.", "optim.", "data.augment")) and key != "optim.epochs"]
    if new.optim.epochs == done and idle:
        raise ValueError(
            f"{idle[0]} is {changed[idle[0]][1]} (was {changed[idle[0]][0]}) and no epoch is left to train with it: "
            f"{path} has done {done} of optim.epochs {new.optim.epochs}; expected more --optim.epochs"
        )
    if new.optim.epochs == done and not (path.parent / "best.ckpt").is_file():
        raise ValueError(
            f"{path.parent / 'best.ckpt'} is not there and no epoch is left to choose one: {path} has done {done} of "
            f"optim.epochs {new.optim.epochs}; expected more --optim.epochs, or best.ckpt restored"
        )
    _check_folder(new, run)
    found = Resumed(path, run, content, new, changed, done)
    MetricsFile(run / "metrics.csv", found.step)  # raises ValueError if the file is damaged
    return found


def check_data(resumed: Resumed, config: TrainConfig, data: DataSplits) -> None:
    """Raise ValueError if classes or samples differ from those of the run, or its weights do not fit the new module."""
    _check_samples(resumed.content[KEY], data, resumed.changed, resumed.checkpoint)
    _check_weights(resumed.content, config, data, resumed.checkpoint)


def _resolved(config: TrainConfig, prototypes: Tensor | None) -> TrainConfig:
    """The settings with the number of the power auto for the prototypes of the earlier run."""
    if prototypes is None or config.head.loss != "power" or config.head.power not in (None, "auto"):
        return config
    return replace(config, head=replace(config.head, power=power_for(prototypes)))


def changes(old: TrainConfig, new: TrainConfig) -> Changes:
    """Settings that differ, as (before, now). The name of a run is compared only if one is given."""
    before, now = flatten(old.to_dict()), flatten(new.to_dict())
    differ = {}
    for key, value in now.items():
        was = before[key]
        same = was == value or (key in PATHS and None not in (was, value) and _real_path(was) == _real_path(value))
        if not same and key not in ("out", "resume") and not (key == "name" and value is None):
            differ[key] = (was, value)
    return differ


def _real_path(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _is_reported(key: str) -> bool:
    return key not in SILENT and rule_of(key) is not Rule.DATA


def _note(changed: Changes, done: int) -> str | None:
    told = [f"{key} {now} (was {before})" for key, (before, now) in changed.items() if _is_reported(key)]
    if not told:
        return None
    shape = any(key.startswith("optim.") for key in changed)
    schedule = ", and the learning rate follows the schedule of these settings" if shape else ""
    return f"note: after epoch {done} the run goes on with {', '.join(told)}{schedule}"


# --- data ------------------------------------------------------------------------------------------------------------


def data_facts(data: DataSplits) -> dict[str, PartFacts]:
    """For the checkpoint: number of samples and order-dependent digest of each part of the data."""
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: {"samples": len(part), "digest": _digest(part)} for name, part in parts.items()}


CONTENTS, CONTENT_BYTES = 256, 1 << 16  # evenly spaced picture files that are read, and bytes read of each


def _digest(part: LabelledImages) -> str:
    """Digest of labels and pixels; of picture files, of names, sizes and the first bytes of a few hundred.

    The path of the folder is left out: a data set may be moved.
    """
    digest = hashlib.blake2b(digest_size=16)
    labels, images, paths = (getattr(part, name, None) for name in ("labels", "images", "paths"))
    if isinstance(labels, Tensor):
        digest.update(labels.cpu().contiguous().numpy().tobytes())
    if isinstance(images, Tensor) and paths is None:
        digest.update(images.cpu().contiguous().numpy().data)
    if paths is not None:
        for path in paths:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape"))
        for path in paths[:: max(1, len(paths) // CONTENTS)]:
            with path.open("rb") as file:
                digest.update(file.read(CONTENT_BYTES))
    return digest.hexdigest()


def _check_samples(facts: dict[str, Any], data: DataSplits, changed: Changes, path: Path) -> None:
    asked = [f"{key} {now} (was {was})" for key, (was, now) in changed.items() if rule_of(key) is Rule.DATA]
    advice = "resume with the data of that run, or start a new one without --resume"
    if asked:
        advice = f"{', '.join(asked)}: {advice}"
    before, now = list(facts["class_names"]), list(data.class_names)
    if len(before) != len(now):
        raise ValueError(f"{path} was made with {len(before)} classes and this run has {len(now)}; {advice}")
    for label, (was, name) in enumerate(zip(before, now, strict=True)):
        if was != name:
            raise ValueError(
                f"{path} was made with class {label} named {was!r} and this run has {name!r} there; expected the same "
                f"names in the same order: {advice}"
            )
    was_read, read = facts["preprocessing"], data.preprocessing.to_dict()
    for key in ("image_size", "channels"):
        if was_read[key] != read[key]:
            raise ValueError(
                f"{path} was made with pictures of {key} {was_read[key]} and this run has {read[key]}; {advice}"
            )
    if facts.get("data") is None:  # a checkpoint of version 0.1.0
        if asked:
            raise ValueError(f"{path} does not say what its data were; {advice}")
        return
    for part, ours in data_facts(data).items():
        theirs = facts["data"][part]
        if theirs["samples"] != ours["samples"]:
            raise ValueError(
                f"{path} was made with {theirs['samples']} {part} samples and this run has {ours['samples']}; {advice}"
            )
        if theirs["digest"] != ours["digest"]:
            raise ValueError(f"{path} was made with other {part} samples than this run has; {advice}")


# --- folders and weights ---------------------------------------------------------------------------------------------


def _check_folder(config: TrainConfig, run: Path) -> None:
    if config.out is None and not (run / "config.yaml").is_file():
        raise ValueError(f"{config.resume} lies in no run folder; name the folder to go on in with --out")


def _check_weights(content: dict[str, Any], config: TrainConfig, data: DataSplits, path: Path) -> None:
    """Load the weights into a classifier on the meta device: another version's network may have other weights."""
    module = Classifier.for_data(config, data)
    with torch.device("meta"):
        module.configure_model()
    try:
        module.load_state_dict(content["state_dict"], assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{path} holds weights that do not fit {config.model.name} with head {config.head.name} as they are built "
            "now; resume with the versions of versions.json, or start a new run"
        ) from error
