"""Cooperative cancellation of background threads: long loops call :func:`check_stop` between their steps."""

from __future__ import annotations

import threading
from contextvars import ContextVar


class Stopped(Exception):
    """Raised in a thread to end a computation whose result is not needed any more."""


STOP: ContextVar[threading.Event | None] = ContextVar("fastproto_stop", default=None)


def check_stop() -> None:
    """Raise :class:`Stopped` if this thread was asked to stop."""
    event = STOP.get()
    if event is not None and event.is_set():
        raise Stopped("the process is about to exit")
