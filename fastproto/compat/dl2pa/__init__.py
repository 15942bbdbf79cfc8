"""The interface of the authors' published code: classifier, losses, settings, checkpoints and prototype files.

Written from what that code does; none of it is used. ``docs/dl2pa.md`` lists the differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastproto.compat.lazy_names import load_name

if TYPE_CHECKING:
    from fastproto.compat.dl2pa.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, save_prototypes
    from fastproto.compat.dl2pa.classifier import fixed_Classifier
    from fastproto.compat.dl2pa.losses import BLoss, LTloss, produce_Ew
    from fastproto.compat.dl2pa.settings import read_dl2pa_config

_FILES = {
    "BLoss": "losses",
    "Checkpoint": "checkpoints",
    "LTloss": "losses",
    "fixed_Classifier": "classifier",
    "load_checkpoint": "checkpoints",
    "produce_Ew": "losses",
    "read_dl2pa_config": "settings",
    "save_checkpoint": "checkpoints",
    "save_prototypes": "checkpoints",
}

__all__ = [
    "BLoss",
    "Checkpoint",
    "LTloss",
    "fixed_Classifier",
    "load_checkpoint",
    "produce_Ew",
    "read_dl2pa_config",
    "save_checkpoint",
    "save_prototypes",
]


def __getattr__(name: str) -> object:
    return load_name(__name__, name, _FILES)
