"""String options of the public functions and heads: their allowed values, and one check for all."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from fastproto.support import loss_options

Form: TypeAlias = Literal["pairs", "eq5"]
SgdForm: TypeAlias = Literal["eq5", "within_batch"]
Precision: TypeAlias = Literal["highest", "high", "medium"]
PassPrecision: TypeAlias = Literal["highest", "higher", "high", "medium"]  # of a pass inside a search
Effort: TypeAlias = Literal["normal", "best"]
Backend: TypeAlias = Literal["auto", "triton", "numba", "torch"]

_ALLOWED: dict[str, tuple[str, ...]] = loss_options.ALLOWED | {
    "form": get_args(Form),
    "precision": get_args(Precision),
    "effort": get_args(Effort),
    "backend": get_args(Backend),
}
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_options(**given: str) -> None:
    """Check that each option has an allowed value: ``check_options(loss=loss, reduction=reduction)``.

    Raises:
        ValueError: any other value.
    """
    for name, value in given.items():
        if value not in _ALLOWED[name]:
            raise ValueError(f"{name} is {value!r}; expected {_one_of(_ALLOWED[name])}")


def _one_of(allowed: tuple[str, ...]) -> str:
    named = [repr(value) for value in allowed]
    if len(named) > 3:
        return f"one of {', '.join(named)}"
    return f"{', '.join(named[:-1])} or {named[-1]}"
