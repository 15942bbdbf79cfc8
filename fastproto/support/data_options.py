"""The augmentation of training images: what may be asked for."""

from __future__ import annotations

from typing import Literal, TypeAlias

Augment: TypeAlias = Literal["auto", "none", "jitter", "crop_flip", "resized_crop"]

_WORDS = {"true": "auto", "yes": "auto", "on": "auto", "false": "none", "no": "none", "off": "none"}


def augment_of(value: object) -> object:
    """``"auto"`` for true and ``"none"`` for false, as earlier versions wrote it; any other value as it is."""
    if isinstance(value, bool):
        return "auto" if value else "none"
    return _WORDS.get(value.strip().lower(), value) if isinstance(value, str) else value
