"""Finds the heads inside of any model and renews their assignments."""

from __future__ import annotations

from torch import nn

from fastproto.assignment import Assignment
from fastproto.head import PrototypeHead


def heads_in(model: nn.Module) -> dict[str, PrototypeHead]:
    """The heads anywhere inside of ``model``, or ``model`` itself, by their names as of ``named_modules``.

    Raises:
        ValueError: there is none.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, PrototypeHead)}
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no PrototypeHead inside; expected at least one: make it an attribute of the "
            "module"
        )
    return found


def renew_assignments(model: nn.Module) -> dict[str, Assignment]:
    """:meth:`fastproto.PrototypeHead.reassign` of every head inside of ``model``, also of one wrapped for DDP.

    Call it on every rank, between two steps.

    Raises:
        ValueError: no head inside; as :meth:`fastproto.PrototypeHead.reassign`.
    """
    return {name: head.reassign() for name, head in heads_in(model).items()}
