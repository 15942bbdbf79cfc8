"""Runs a computation in a thread while training goes on, and stops it when the process exits."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

from fastproto.support.cancellation import STOP

T = TypeVar("T")

_running: dict[threading.Thread, threading.Event] = {}  # each thread with the event that asks it to stop


def in_background(compute: Callable[[], T], device: torch.device) -> Future[T]:
    """Runs ``compute()`` in a thread and returns its future.

    The thread uses the backend that :func:`fastproto.backend.use_backend` names in the caller. On a CUDA device it has
    its own stream, which waits for the work queued so far on the current stream: inputs copied before the call are
    ready. At exit, the process asks the thread to stop and waits for it. An assignment stops within a block of scores
    or a step of its solver; another ``compute`` stops when it calls
    :func:`fastproto.support.cancellation.check_stop`, or else runs to its end.

    Args:
        compute: a function without arguments.
        device: the device whose stream it uses.

    Returns:
        A future: ``.done()`` asks whether the value is there, ``.result()`` waits for it or raises the error of
        ``compute``.
    """
    future: Future[T] = Future()
    stop, context = threading.Event(), copy_context()
    context.run(STOP.set, stop)
    stream = None
    if device.type == "cuda":
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))

    def run() -> None:
        try:
            with torch.cuda.stream(stream):  # None: no stream
                found = context.run(compute)
            if stream is not None:
                stream.synchronize()  # so that any other stream can read the value
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error)

    # A daemon: the interpreter joins other threads before it calls the functions registered with atexit.
    thread = threading.Thread(target=run, name="fastproto-assignment", daemon=True)
    for ended in [other for other in list(_running) if other.ident is not None and not other.is_alive()]:
        _running.pop(ended, None)
    _running[thread] = stop
    thread.start()
    return future


def _stop_all() -> None:
    """Stops the threads before the interpreter shuts down: a thread in compiled code would then abort the process."""
    for stop in list(_running.values()):
        stop.set()
    for thread in list(_running):
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:
                continue  # the thread has been asked to stop and ends soon


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # a child has none of these threads
