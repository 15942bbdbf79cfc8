"""Options of the loss and of heads: their allowed values, and the factor of each form of the loss."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Loss: TypeAlias = Literal["eq6", "official"]
Means: TypeAlias = Literal["ema", "official"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]
NanPolicy: TypeAlias = Literal["raise", "skip"]

LOSS_FACTORS: dict[Loss, float] = {"eq6": 1.0, "official": 2.0}  # times Eq. 6, (1 - cos)² / 2
ALLOWED: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "means": get_args(Means),
    "reduction": get_args(Reduction),
    "nan_policy": get_args(NanPolicy),
}
