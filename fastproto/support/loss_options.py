"""Options of the loss and of heads: their allowed values, and the factor of each form of the loss."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

IpmLoss: TypeAlias = Literal["eq6", "power", "official"]
Loss: TypeAlias = Literal["eq6", "power", "official", "softmax"]  # of heads
Power: TypeAlias = float | Literal["auto"]  # of heads
Scale: TypeAlias = float | Literal["norm"]  # of the logits of softmax
Means: TypeAlias = Literal["ema", "official"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]
NanPolicy: TypeAlias = Literal["raise", "skip"]

LOSS_FACTORS: dict[IpmLoss, float] = {"eq6": 1.0, "power": 1.0, "official": 2.0}  # times (1 - cos)^p / p
EQ6_POWER = 2.0
POWERS = (0.01, 100.0)  # within these, loss and gradient are finite in float32
ALLOWED: dict[str, tuple[str, ...]] = {
    "loss": get_args(Loss),
    "means": get_args(Means),
    "reduction": get_args(Reduction),
    "nan_policy": get_args(NanPolicy),
}
