"""The commands fastproto-train, fastproto-prototypes and fastproto-predict.

Imports are deferred: ``--help`` and errors about options load neither torch nor Lightning.
"""

from __future__ import annotations

from fastproto.cli.predict_command import predict
from fastproto.cli.prototypes_command import prototypes
from fastproto.cli.train_command import train

__all__ = ["predict", "prototypes", "train"]
