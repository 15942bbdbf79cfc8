"""The commands fastproto-train, -prototypes, -predict, -test, -embed and -export.

Imports are deferred: ``--help`` and errors about options load neither torch nor Lightning.
"""

from __future__ import annotations

from fastproto.cli.embed_command import embed
from fastproto.cli.export_command import export
from fastproto.cli.predict_command import predict
from fastproto.cli.prototypes_command import prototypes
from fastproto.cli.test_command import test
from fastproto.cli.train_command import train

__all__ = ["embed", "export", "predict", "prototypes", "test", "train"]
