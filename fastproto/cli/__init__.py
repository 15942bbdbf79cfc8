"""The commands fastproto-train, fastproto-prototypes and fastproto-predict.

Nothing heavy is imported before its use: neither torch nor Lightning for ``--help`` or a wrong option.
"""

from __future__ import annotations

from fastproto.cli.predict_command import predict
from fastproto.cli.prototypes_command import prototypes
from fastproto.cli.train_command import train

__all__ = ["predict", "prototypes", "train"]
