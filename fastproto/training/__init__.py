"""Training with Lightning: ``fit(TrainConfig(...))`` does what ``fastproto-train`` does.

Names are imported on first use: the configuration must be readable without importing torch or Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastproto.training.settings_and_flags import DataConfig, HeadConfig, ModelConfig, OptimConfig, TrainConfig

if TYPE_CHECKING:
    from fastproto.training.run import RunResult, fit

__all__ = ["DataConfig", "HeadConfig", "ModelConfig", "OptimConfig", "RunResult", "TrainConfig", "fit"]


def __getattr__(name: str) -> Any:
    if name not in ("RunResult", "fit"):
        raise AttributeError(f"module 'fastproto.training' has no attribute {name!r}")
    try:
        import lightning  # noqa: F401 - only a check that it is installed
    except ImportError as error:
        raise ImportError("training needs lightning, which is not installed: pip install 'fastproto[train]'") from error
    import fastproto.training.run as module

    return getattr(module, name)
