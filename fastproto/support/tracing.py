"""What else is going on around a call: a graph is recorded, or backward is running."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch


def recording() -> bool:
    """Whether torch.export or torch.jit.trace is recording: a graph for other batches, which must not hold values."""
    # the flag itself: the compiler of torch 2.9 takes is_exporting() for true in every graph
    return torch.compiler._is_exporting_flag or tracing()


def tracing() -> bool:
    """Whether torch.jit.trace is recording: shapes are then tensors, and comparing them is warned about."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # torch.jit has no types


@contextlib.contextmanager
def not_traced() -> Iterator[None]:
    """What runs inside is no part of the graph that torch.jit.trace records, if it records one."""
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
    """Whether autograd's backward pass is running, as it is when a checkpointed forward pass is computed again."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def after_backward(callback: Callable[[], None]) -> None:
    """Call this once when the backward pass that is running has ended."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)
