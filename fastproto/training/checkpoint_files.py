"""Checkpoints: written atomically, read without executing code, and sufficient for prediction.

This module imports neither the classifier nor the heads: :func:`rebuild_module` takes their builder as an argument.
"""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from torch import Tensor, nn

import fastproto
from fastproto.data import Preprocessing
from fastproto.support.array_files import check_torch_archive
from fastproto.support.atomic_files import write_whole
from fastproto.training.settings_and_flags import TrainConfig

KEY = "fastproto"  # of our entry in a checkpoint, beside Lightning's
Module = TypeVar("Module", bound=nn.Module)


class PartFacts(TypedDict):
    """Size and digest of one part of the data: a resumed run must find the same."""

    samples: int
    digest: str


@dataclass(frozen=True)
class Description:
    """All that a checkpoint stores about its classifier beside the weights; sufficient for prediction."""

    config: TrainConfig
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    data: dict[str, PartFacts] | None = None  # by part; None: written by version 0.1.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": fastproto.__version__,
            "config": self.config.to_dict(),
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "data": self.data,
        }

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Description:
        return cls(
            TrainConfig.from_dict(facts["config"]),
            tuple(facts["class_names"]),
            Preprocessing.from_dict(facts["preprocessing"]),
            facts.get("data"),
        )


class WholeFileIO(CheckpointIO):
    """Lightning's checkpoint plugin: files are written under a temporary name and read with ``weights_only=True``."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: object = None
    ) -> None:
        write_whole(path, lambda file: save(checkpoint, file))

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location or "cpu")  # type: ignore[arg-type]

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        Path(path).unlink(missing_ok=True)


def save(content: object, path: Path) -> None:
    """``torch.save`` through a Python file: its errors name the cause of a failed write, those of torch do not."""
    with _ErrorKeepingFile(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError:
            if file.error is not None:
                raise file.error from None
            raise


class _ErrorKeepingFile(io.FileIO):
    """A file that keeps the OSError of a failed write, which torch replaces with a RuntimeError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of ``data``: one system call may write only a part."""
        view, done = memoryview(data).cast("B"), 0
        try:
            while done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = error
            raise
        return done


def read_checkpoint(path: str | os.PathLike[str], map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint that fastproto-train has written.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, damaged, or not made by fastproto-train.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}; expected a .ckpt file of a run folder, such as checkpoints/best.ckpt"
        )
    try:
        check_torch_archive(path)
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged archives, pickles and tensors raise many types
        raise ValueError(
            f"{path} is truncated, damaged or not a checkpoint; expected a file written by fastproto-train: "
            "take another checkpoint of the run, or train again"
        ) from error
    if not isinstance(content, dict) or KEY not in content:
        raise ValueError(f"{path} was not written by fastproto-train; expected one of its checkpoints")
    return content


def find_checkpoint(path: str | os.PathLike[str], name: str = "last") -> Path:
    """The checkpoint that a path stands for: the file itself, or checkpoints/NAME.ckpt of a run folder.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without that checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        file = path / "checkpoints" / f"{name}.ckpt"
        if not file.is_file():
            raise FileNotFoundError(
                f"{path} holds no checkpoints/{name}.ckpt; expected a run folder of fastproto-train"
            )
        return file
    if not path.is_file():
        raise FileNotFoundError(f"no run folder or checkpoint {path}; expected one that fastproto-train has written")
    return path


def rebuild_module(
    path: str | os.PathLike[str], build: Callable[[Description], Module], *, prefix: str = ""
) -> tuple[Module, Description]:
    """Rebuild a trained module from a checkpoint, or from best.ckpt of a run folder.

    Args:
        build: makes the module from the description; called on the meta device.
        prefix: common to the names of the module's weights in the checkpoint, such as ``head.``.

    Returns:
        The module with its weights on the CPU, and the description of its classifier.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_checkpoint`; also weights that do not fit the configuration.
    """
    path = find_checkpoint(path, "best")
    content = read_checkpoint(path)
    try:
        description = Description.from_dict(content[KEY])
        with torch.device("meta"):
            module = build(description)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
        raise ValueError(
            f"{path} describes its classifier in a way this version cannot follow ({type(error).__name__}: {error}); "
            "expected a checkpoint of fastproto-train: take another one, or train again"
        ) from error
    try:
        module.load_state_dict(part_of_state(content["state_dict"], prefix), assign=True)
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds weights that do not fit its own configuration; train again") from error
    return module, description


def part_of_state(state: dict[str, Tensor], prefix: str) -> OrderedDict[str, Tensor]:
    """The entries whose names begin with ``prefix``, without it, and the versions of their modules."""
    part = OrderedDict((name[len(prefix) :], value) for name, value in state.items() if name.startswith(prefix))
    versions: dict[str, object] = getattr(state, "_metadata", {})
    found = {name[len(prefix) :]: value for name, value in versions.items() if f"{name}.".startswith(prefix)}
    part._metadata = found  # type: ignore[attr-defined]  # where torch keeps the versions
    return part
