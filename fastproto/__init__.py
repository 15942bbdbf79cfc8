"""Hyperspherical classification with fixed prototypes and a label-to-prototype assignment renewed during training.

Names load on first use, so that ``import fastproto`` stays quick and imports neither torch nor a training framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastproto.assignment import Alignment, Assignment, align, assign, solve
    from fastproto.functional import (
        gaussian_potential,
        ipm_loss,
        nearest_prototypes,
        uniformity_loss,
        update_class_means,
        update_class_means_,
    )
    from fastproto.head import PrototypeHead, exclude_from_broadcast
    from fastproto.prototypes import Prototypes, Quality, estimate_prototypes, load_prototypes, measure_prototypes

_SUBMODULE = {
    "Alignment": "assignment",
    "Assignment": "assignment",
    "Prototypes": "prototypes",
    "PrototypeHead": "head",
    "Quality": "prototypes",
    "align": "assignment",
    "assign": "assignment",
    "estimate_prototypes": "prototypes",
    "exclude_from_broadcast": "head",
    "gaussian_potential": "functional",
    "ipm_loss": "functional",
    "load_prototypes": "prototypes",
    "measure_prototypes": "prototypes",
    "nearest_prototypes": "functional",
    "solve": "assignment",
    "uniformity_loss": "functional",
    "update_class_means": "functional",
    "update_class_means_": "functional",
}

__all__ = [
    "Alignment",
    "Assignment",
    "PrototypeHead",
    "Prototypes",
    "Quality",
    "__version__",
    "align",
    "assign",
    "estimate_prototypes",
    "exclude_from_broadcast",
    "gaussian_potential",
    "ipm_loss",
    "load_prototypes",
    "measure_prototypes",
    "nearest_prototypes",
    "solve",
    "uniformity_loss",
    "update_class_means",
    "update_class_means_",
]


def __getattr__(name: str) -> object:
    if name not in _SUBMODULE:
        raise AttributeError(f"module 'fastproto' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fastproto.{_SUBMODULE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
