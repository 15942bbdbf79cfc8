"""Solve while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

T = TypeVar("T")


def in_background(compute: Callable[[], T], device: torch.device) -> Future[T]:
    """``compute()`` in a thread; ``.done()`` asks, ``.result()`` waits for the value or raises its error.

    It runs on the backend that :func:`fastproto.backend.use_backend` names here. On a GPU the thread has a stream of
    its own, which begins after what is queued now: copies made before are ready. The thread is a daemon: a process that
    is told to stop does not wait for a long solve, as it would for an executor.
    """
    future: Future[T] = Future()
    context = copy_context()
    stream = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))

    def run() -> None:
        try:
            with torch.cuda.stream(stream):  # None: no stream
                found = context.run(compute)
            if stream is not None:
                stream.synchronize()  # the value is there for any other stream
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="fastproto-assignment", daemon=True).start()
    return future
