"""Hugging Face: a model for ``transformers.Trainer``, and a callback that renews its assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastproto.compat.lazy_names import load_name

if TYPE_CHECKING:
    from fastproto.compat.transformers.callback import RenewAssignment
    from fastproto.compat.transformers.model import PrototypeClassifier

_FILES = {"PrototypeClassifier": "model", "RenewAssignment": "callback"}

__all__ = ["PrototypeClassifier", "RenewAssignment"]


def __getattr__(name: str) -> object:
    return load_name(__name__, name, _FILES, needs="transformers" if name == "RenewAssignment" else None)
