"""Runs a command: signals, standard output and error, and the exit code."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from fastproto.cli.error_messages import explain
from fastproto.support.exit_codes import DONE
from fastproto.support.stopping import stopping

ALL_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_command(
    command: Callable[[list[str]], None],
    args: Sequence[str] | None,
    signals: Sequence[signal.Signals] = ALL_SIGNALS,
) -> int:
    """Call a command with its arguments and return its exit code.

    Args:
        args: the arguments; None: those of this process, and ``signals`` then end it and its other ranks at once.
        signals: the signals to handle.
    """
    stopping.folder = None  # left by an earlier command in this process
    if args is None:
        stopping.explain = explain
        stopping.watch(signals)
    code = exit_code(lambda: command(list(sys.argv[1:] if args is None else args)))
    if args is None:
        stopping.finish(wait=20)
    return code


def exit_code(command: Callable[[], None]) -> int:
    """Call a command and return its exit code; print an error as one sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name outside the terminal's encoding must not raise
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
        _flush_stdout()
    except BrokenPipeError:
        _discard_stdout()
    except SystemExit:
        raise
    except BaseException as error:  # any: a command never ends with a bare traceback
        stopping.fail(error)  # ends the process if other ranks wait for it
        code, text = explain(error)
        with suppress(OSError, ValueError):  # standard error may be closed, or on a full disk
            print_error(text)
        try:
            _flush_stdout()
        except (OSError, ValueError):
            _discard_stdout()
        return code
    return DONE


def print_error(text: str) -> None:
    """Print a line on standard error if it is open; otherwise ``print`` would use standard output."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def _flush_stdout() -> None:
    if sys.stdout is not None:  # None if the process was started with it closed
        sys.stdout.flush()


def _discard_stdout() -> None:
    """Redirect it to /dev/null after a failed write: the rest of its buffer must not fail again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
