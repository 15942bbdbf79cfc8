"""Heads as the configuration names them."""

from __future__ import annotations

from dataclasses import replace

from fastproto.training.build_head import build_head
from fastproto.training.settings_and_flags import HeadConfig


def test_class_means_may_stay_on_their_rank() -> None:
    config = HeadConfig(sync_class_means=False)
    for name, synced in (("prototype", False), ("fixed", False), ("etf", None)):
        head = build_head(replace(config, name=name, dim=9), tuple("abcdefghij"), seed=0)
        assert getattr(head, "sync_class_means", None) is synced
