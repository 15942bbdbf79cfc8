"""A module whose buffers keep their dtypes, and whose state is replaced only by a valid one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastproto.support.checks import check_finite, check_permutation, check_unit_rows
from fastproto.support.exact_buffers import NAMES, ExactBuffers, readable
from fastproto.support.registration import register
from fastproto.support.tracing import not_traced, recording


class GuardedState(nn.Module):
    """Base of heads: buffers stay float32 and int64 under ``.half()``; an invalid state is refused before any change.

    ``prototypes`` [C, D] must be unit rows, ``assignment`` [C] a permutation, every other float buffer finite. Means
    that averaging writes into ``prototypes``, ``assignment`` and ``prices`` of a deep copy, or copies back from there,
    are replaced by the newest values of the original: see :mod:`fastproto.support.exact_buffers`.
    """

    num_classes: int
    prototypes: Tensor
    assignment: Tensor

    _exact: ExactBuffers

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self._exact = ExactBuffers()

    def settle(self) -> None:
        """Finish a pending change of the state; called before the state is saved, replaced, moved or evaluated."""

    def _exact_buffers(self) -> dict[str, Tensor]:
        return {name: tensor for name in NAMES if (tensor := self._buffers.get(name)) is not None}

    def _keep(self, *, decided: bool = False) -> None:
        """Accept the exact buffers as they are; ``decided``: the module no longer follows its original."""
        buffers = self._exact_buffers()
        if readable(buffers):
            self._exact.keep(buffers, decided=decided)

    def _heal(self, *, counted_only: bool = False) -> None:
        """Undo writes of averaging to the exact buffers, see :mod:`fastproto.support.exact_buffers`.

        ``counted_only``: detect only the writes that raise a version, and do not wait for the device.
        """
        exact = self._exact
        # not is_compiling(): torch.export must restore the state as well, since its graph keeps the values
        if torch.compiler.is_dynamo_compiling() or not exact.source():
            return
        if counted_only and exact.unwritten(self._buffers):
            return
        buffers = self._exact_buffers()
        if not readable(buffers):
            return
        with torch.no_grad(), not_traced():
            if exact.untouched(self._buffers):
                return
            self._buffers.update(exact.restore(buffers))
            updates = self._buffers.get("updates")
            if updates is not None and updates.is_floating_point():  # averaging replaced the counter with a float mean
                self._buffers["updates"] = updates.long()

    def _sound(self) -> None:
        """Call :meth:`_heal`, then check the assignment.

        Raises:
            ValueError: the assignment was written to from outside and is not a permutation.
        """
        self._heal()
        if torch.compiler.is_compiling() or self._exact.unwritten(self._buffers):
            return
        buffers = self._exact_buffers()
        if readable(buffers):
            check_permutation("assignment", buffers["assignment"], self.num_classes)
            self._exact.keep(buffers)

    def _permutation(self) -> Tensor:
        """The assignment; a compiled step, which cannot undo averaging, checks it on the CPU.

        Raises:
            ValueError: in a compiled step on the CPU, the assignment is not a permutation.
        """
        if not torch.compiler.is_compiling() or recording():
            return self.assignment
        found: Tensor = _checked_permutation(self.assignment)
        return found

    def weight_by_label(self) -> Tensor:
        """Prototypes in the order of the labels, W[A], [C, D] float32: row y is the prototype of label y.

        For export, this is the weight of an ``nn.Linear`` without bias.

        Raises:
            ValueError: the assignment was written to from outside and is not a permutation.
        """
        self._sound()
        return self.prototypes[self._permutation()]

    def train(self, mode: bool = True) -> GuardedState:
        self.settle()
        self._heal()
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, object]:
        self.settle()
        self._heal()
        return {name: value for name, value in self.__dict__.items() if name != "_exact"}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._exact = ExactBuffers()

    def __deepcopy__(self, memo: dict[int, Any]) -> GuardedState:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        buffers = self._exact_buffers()
        if readable(buffers):
            copied._exact = self._exact.for_a_copy(buffers)
            copied._keep()
        return copied

    def _replicate_for_data_parallel(self) -> GuardedState:
        replica: GuardedState = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._exact = ExactBuffers()
        return replica

    def _save_to_state_dict(self, *args: Any) -> None:
        self.settle()
        self._heal()
        super()._save_to_state_dict(*args)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GuardedState:
        """Apply moves between devices, but no changes of dtypes."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        self.settle()
        self._heal()
        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]  # torch's own has no types
        self._after_move()
        return self

    def _after_move(self) -> None:
        """Accept the same values on another device; after ``to_empty`` there are no values yet."""
        buffers = self._exact_buffers()
        if readable(buffers) and self._exact.moved(buffers):
            self._exact.keep(buffers)
            return
        self._exact.stamps = {}
        if self._exact.source():
            self._heal()
        if self._exact.stamps or not readable(buffers):
            return
        try:
            check_permutation("assignment", buffers["assignment"], self.num_classes)
        except ValueError:
            return  # an error on first use, unless a state is loaded before
        self._exact.keep(buffers)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Float buffers are read as float32, parameters as plain tensors."""
        self.settle()
        errors: list[str] = args[-1]
        try:
            # the assignment first: if the state is a mean of several heads' states, its error says so
            for name, own in sorted(self.named_buffers(recurse=False), key=lambda item: item[0] != "assignment"):
                key = prefix + name
                value = state_dict.get(key)
                if not isinstance(value, Tensor) or value.shape != own.shape:
                    continue  # torch reports missing entries, other types and other shapes
                _check_kind(key, value, own.dtype)
                if value.device.type != "meta":
                    _check(name, key, value)
                state_dict[key] = value.detach().to(own.dtype)  # a parameter would not become a buffer
        except ValueError as error:
            errors.append(str(error))
            return
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._zero_non_persistent_buffers()
        self._separate_memory()
        self._keep()

    def _separate_memory(self) -> None:
        """Give each buffer its own memory: an assigned state may contain one tensor twice, or expanded tensors."""
        seen: set[int] = set()
        for name, tensor in self._buffers.items():
            if tensor is None or tensor.device.type == "meta":
                continue
            place = tensor.untyped_storage().data_ptr()
            if place in seen or not tensor.is_contiguous():
                self._buffers[name] = tensor.clone(memory_format=torch.contiguous_format)
            seen.add(place)

    def _zero_non_persistent_buffers(self) -> None:
        """Zero the buffers outside the state, on the device of the state: the module may have been on meta."""
        device = next(
            x.device for n, x in self.named_buffers(recurse=False) if n not in self._non_persistent_buffers_set
        )
        for name in self._non_persistent_buffers_set:
            buffer = self.get_buffer(name)
            if buffer.device == device:
                buffer.zero_()
            else:
                setattr(self, name, torch.zeros_like(buffer, device=device))


def exclude_from_broadcast(model: nn.Module) -> None:
    """Exclude the buffers of all heads from DDP's broadcast before every forward; call it on the module given to DDP.

    Every rank computes the same state from the same gathered samples, so that no broadcast is needed.
    """
    ignored = set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    for name, module in model.named_modules():
        if isinstance(module, GuardedState):
            buffers = dict(module.named_buffers(recurse=False))
            ignored |= {f"{name}.{buffer}" if name else buffer for buffer in buffers}
    model._ddp_params_and_buffers_to_ignore = ignored  # type: ignore[assignment]  # the name DDP reads


def _check_kind(key: str, value: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError unless both dtypes are floats or both integers: a mean of assignments has a float dtype."""
    if value.is_complex() or value.dtype == torch.bool or value.is_floating_point() != dtype.is_floating_point:
        raise ValueError(f"{key} is {value.dtype}; expected {dtype}: load the state of one head, not a mean of several")


def _check(name: str, key: str, value: Tensor) -> None:
    if name == "prototypes":
        check_unit_rows(key, value)
    elif name == "assignment":
        check_permutation(key, value, len(value))
    elif value.is_floating_point():
        check_finite(key, value)


def _as_checked(assignment: Tensor) -> Tensor:
    """A copy; values are checked on the CPU only, since a check on a GPU would wait for the device."""
    if assignment.device.type == "cpu":
        try:
            check_permutation("assignment", assignment, len(assignment))
        except ValueError as error:
            raise ValueError(f"{error}; after an average of weights call eval() before the compiled model") from None
    return assignment.clone()


_checked_permutation = register("checked_permutation", _as_checked, torch.empty_like)
