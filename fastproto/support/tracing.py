"""Detects the context of a call: whether a graph is being recorded, or a backward pass is running."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch


def recording() -> bool:
    """Whether torch.export or torch.jit.trace is recording a graph, which must not contain values of this batch."""
    # not is_exporting(): torch.compile of torch 2.9 evaluates it to True in every graph
    return torch.compiler._is_exporting_flag or tracing()


def tracing() -> bool:
    """Whether torch.jit.trace is recording: sizes are then tensors, and comparing them gives a warning."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch.jit has no types


@contextlib.contextmanager
def not_traced() -> Iterator[None]:
    """Keep the operations inside out of the graph, if torch.jit.trace is recording one."""
    state = torch._C._get_tracing_state()
    if state is None:
        yield
        return
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]  # the stubs of torch lack it
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]  # as above


def in_backward() -> bool:
    """Whether autograd's backward pass is running, as it is when activation checkpointing recomputes a forward pass."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def after_backward(callback: Callable[[], None]) -> None:
    """Call ``callback`` once, when the current backward pass has ended."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)
