"""The authors' checkpoints and prototype files, both ways. Nothing in a file is ever executed (no pickled code)."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto.compat.dl2pa.classifier import fixed_Classifier
from fastproto.head import PrototypeHead
from fastproto.prototypes import Prototypes
from fastproto.prototypes.files import make
from fastproto.support.array_files import check_torch_archive
from fastproto.support.atomic_files import write_memory
from fastproto.support.checks import check_matrix, check_unit_rows

MODEL, CLASSIFIER, POLARS = "state_dict_model", "state_dict_classifier", "polars"
# Their its_ece is a NumPy number, whose maker NumPy 1 and 2 name differently.
_MAKER = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_MAKER, "numpy.core.multiarray.scalar"),
    (_MAKER, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of the authors' training loop."""

    backbone: dict[str, Tensor]  # state of their network, without the prefix of data parallelism
    classifier: dict[str, Tensor]  # queue [C, D], and the state of BN_H under their names
    polars: Tensor  # [D, C]: column y is the prototype of label y
    epoch: int  # finished epochs
    best_acc1: float  # in percent

    def head(self, **options: Any) -> PrototypeHead:
        """A head with their prototypes, in the order of the labels, and their class means.

        ``options`` go to :class:`fastproto.PrototypeHead`; the defaults are their loss and class means. Features of
        long-tailed data pass through ``BN_H`` first.
        """
        rows = self._rows()
        found = PrototypeHead(
            *rows.shape, prototypes=rows, **{"loss": "official", "means": "official", "reduction": "sum"} | options
        )
        state = found.state_dict()
        state |= {"assignment": torch.arange(len(rows)), "class_means": self.classifier["queue"]}
        found.load_state_dict(state)
        return found

    def fixed_classifier(self, gpu_id: int | str | torch.device | None = 0) -> fixed_Classifier:
        """Their classifier as it was saved; its prototypes are in the order of the labels."""
        rows = self._rows()
        with torch.random.fork_rng(devices=[]):  # the class means that a new one draws are not kept
            found = fixed_Classifier(rows.shape[1], len(rows), rows, gpu_id)
        found.load_state_dict({**self.classifier, "assignment": torch.arange(len(rows))})
        return found

    def _rows(self) -> Tensor:
        return F.normalize(self.polars.T.float(), dim=1)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint of the authors, ``current.pth.tar`` or ``model_best.pth.tar``, to the CPU.

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: damaged, or without their keys, as with a learnable classifier.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}; expected a .pth.tar file of the authors' training loop")
    try:
        check_torch_archive(path)
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged archives, pickles and tensors raise many types
        text = "" if isinstance(error, KeyError) else str(error)  # of an unknown opcode it is the number alone
        reason = text.splitlines()[0] if text else "no file of torch.save"
        raise ValueError(f"{path} could not be read ({reason}); expected a whole checkpoint: copy it again") from error
    return _as_checkpoint(path, content)


def _as_checkpoint(path: Path, content: Any) -> Checkpoint:
    whole = isinstance(content, dict) and all(key in content for key in (MODEL, CLASSIFIER, POLARS))
    classifier = _plain(path, CLASSIFIER, content) if whole else {}
    if "queue" not in classifier:
        raise ValueError(
            f"{path} lacks one of {MODEL}, {CLASSIFIER} with a queue, {POLARS}; expected a checkpoint of the authors' "
            "training loop with fixed_classifier: True"
        )
    check_matrix(f"{path}: {POLARS}", content[POLARS], min_rows=2)
    try:
        epoch, best = int(content.get("epoch", 0)), float(content.get("best_acc1", -1))
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a tensor with several numbers
        raise ValueError(f"{path}: epoch or best_acc1 is no number ({error}); expected one: save it again") from error
    return Checkpoint(_plain(path, MODEL, content), classifier, content[POLARS], epoch, best)


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    classifier: fixed_Classifier | PrototypeHead,
    *,
    epoch: int = 0,
    best_acc1: float = -1.0,
    its_ece: float = math.nan,
) -> None:
    """Write a checkpoint in the authors' format, atomically: their keys and nothing else.

    Args:
        path: of the file, ``current.pth.tar`` in their loop.
        model: the backbone.
        classifier: theirs, or a head, whose ``BN_H`` is then one that changes nothing.
        epoch, best_acc1, its_ece: finished epochs, best accuracy and its calibration error in percent.

    Raises:
        TypeError: another classifier, such as one inside of DDP.
    """
    if not isinstance(classifier, fixed_Classifier | PrototypeHead):
        raise TypeError(
            f"classifier is a {type(classifier).__name__}; expected a fixed_Classifier or a PrototypeHead: pass the "
            "module that it wraps, such as classifier.module"
        )
    state, polars = _of_head(classifier) if isinstance(classifier, PrototypeHead) else _of_theirs(classifier)
    facts = {"epoch": epoch, "best_acc1": best_acc1, "its_ece": its_ece}
    content = io.BytesIO()
    torch.save({MODEL: model.state_dict(), CLASSIFIER: state, POLARS: polars.contiguous(), **facts}, content)
    write_memory(Path(path), content)


def save_prototypes(
    prototypes: Prototypes | PrototypeHead | fixed_Classifier | Tensor, folder: str | os.PathLike[str]
) -> Path:
    """Write prototypes in the authors' format and under the name that their loop looks for.

    Args:
        prototypes: with unit rows; a tensor is [C, D]. Of a head it is the prototypes, not their assignment.
        folder: ``Estimated_prototypes`` beside their code.

    Returns:
        The file, ``FOLDER/{C}centers_{D}dim.pth`` with ``{"w": [D, C]}``.

    Raises:
        TypeError, ValueError: not a matrix, rows that are not unit.
    """
    vectors = prototypes.vectors if isinstance(prototypes, Prototypes) else prototypes
    rows = vectors if isinstance(vectors, Tensor) else vectors.prototypes
    check_matrix("prototypes", rows, min_rows=2)
    check_unit_rows("prototypes", rows)
    path = Path(folder) / f"{len(rows)}centers_{rows.shape[1]}dim.pth"
    make(rows, 2.0, "file").save(path)
    return path


def _of_theirs(classifier: fixed_Classifier) -> tuple[dict[str, Tensor], Tensor]:
    """The state that their class has, and the prototypes in the order of the labels as columns [D, C]."""
    kept = {key: value for key, value in classifier.state_dict().items() if key.startswith(("queue", "BN_H."))}
    return kept, classifier.polars


def _of_head(head: PrototypeHead) -> tuple[dict[str, Tensor], Tensor]:
    """As :func:`_of_theirs`, with a new ``BN_H``. No rank waits for another, and nothing is drawn at random."""
    head.settle()
    norm = nn.BatchNorm1d(head.dim, device=head.class_means.device)
    named = {f"BN_H.{name}": value for name, value in norm.state_dict().items()}
    return {"queue": head.class_means, **named}, head.weight_by_label().T


def _plain(path: Path, key: str, content: dict[str, Any]) -> dict[str, Tensor]:
    """The state under ``key`` without the prefix of data parallelism."""
    state = content[key]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path}: {key} is a {type(state).__name__}; expected the state of a module, by names")
    return {name.removeprefix("module."): value for name, value in state.items()}
