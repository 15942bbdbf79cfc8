"""The commands fastproto-train, fastproto-prototypes and fastproto-predict."""

from __future__ import annotations

from fastproto.cli.prototypes_command import _run, parse_train, predict, prototypes, train

__all__ = ["_run", "parse_train", "predict", "prototypes", "train"]
