"""Lightning: a callback that renews the assignments of any LightningModule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastproto.compat.lazy_names import load_name

if TYPE_CHECKING:
    from fastproto.compat.lightning.callback import RenewAssignment

__all__ = ["RenewAssignment"]


def __getattr__(name: str) -> object:
    return load_name(__name__, name, {"RenewAssignment": "callback"}, needs="lightning", extra="train")
