"""How an op becomes a registered operator, opaque to the compiler, CUDA graphs and export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def register(
    name: str, function: Callable[..., Any], shapes: Callable[..., Any], mutates: Sequence[str] = ()
) -> Callable[..., Any]:
    """``torch.ops.fastproto.<name>``: runs ``function`` on every device; ``shapes`` gives empty results of its kind.

    Not torch.library.custom_op: its first call would import torch's compiler, seconds and 150 MiB on a CPU.
    """
    qualified = f"fastproto::{name}"
    torch.library.define(qualified, torch.library.infer_schema(function, mutates_args=tuple(mutates)))
    torch.library.impl(qualified, "default", function)
    torch.library.register_fake(qualified, shapes)
    operator: Callable[..., Any] = getattr(torch.ops.fastproto, name)
    return operator
