"""The heads by the names that ``--head`` takes; :mod:`fastproto.training.build_head` makes them."""

from __future__ import annotations

from typing import Literal, get_args

HeadName = Literal[
    "prototype", "fixed", "softmax", "softmax_uniform", "linear", "fixed_softmax", "etf", "hpn", "trained"
]
HEADS: tuple[HeadName, ...] = get_args(HeadName)
RENEWED_HEADS = ("prototype", "trained")  # those whose assignment is renewed during training
FILES_OF_HEADS = {
    "prototypes": ("prototype", "fixed", "fixed_softmax", "hpn"),
    "words": ("hpn",),
    "trained": ("trained",),
}
