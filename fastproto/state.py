"""A module whose state keeps its dtype and is replaced only by sound state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastproto.checks import check_finite, check_permutation, check_unit_rows


class GuardedState(nn.Module):
    """Buffers stay float32 and int64 whatever ``.half()`` does; a state that is no head's is refused before any change.

    ``prototypes`` [C, D] must be unit rows, ``assignment`` [C] a permutation, every other float buffer finite.
    """

    def settle(self) -> None:
        """Finish what has begun to change the state: called before it is saved, replaced, moved or evaluated."""

    def train(self, mode: bool = True) -> GuardedState:
        self.settle()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        return self.__dict__.copy()

    def _save_to_state_dict(self, *args: Any) -> None:
        self.settle()
        super()._save_to_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GuardedState:
        """Moves between devices happen; changes of the dtype do not."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.settle()
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]  # torch's own has no types
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Float buffers are read as float32."""
        self.settle()
        errors: list[str] = args[-1]
        try:
            for name, own in self.named_buffers(recurse=False):
                key = prefix + name
                if key not in state_dict or state_dict[key].shape != own.shape:
                    continue  # torch itself reports what is missing and what has another size
                value = state_dict[key]
                if value.dtype != own.dtype and value.is_floating_point():
                    state_dict[key] = value.to(own.dtype)
                if value.device.type != "meta":
                    _check(name, key, value)
        except ValueError as error:
            errors.append(str(error))
            return
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._clear_what_no_state_holds()

    def _clear_what_no_state_holds(self) -> None:
        """Buffers beside the state begin at zero, where the state now is: it may have come to a meta module."""
        device = next(
            x.device for n, x in self.named_buffers(recurse=False) if n not in self._non_persistent_buffers_set
        )
        for name in self._non_persistent_buffers_set:
            buffer = self.get_buffer(name)
            if buffer.device == device:
                buffer.zero_()
            else:
                setattr(self, name, torch.zeros_like(buffer, device=device))


def _check(name: str, key: str, value: Tensor) -> None:
    if name == "prototypes":
        check_unit_rows(key, value)
    elif name == "assignment":
        check_permutation(key, value, len(value))
    elif value.is_floating_point():
        check_finite(key, value.reshape(len(value), -1))
