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
        args: None: those of this process, which ends at once on ``signals``, and its other ranks with it.
    """
    stopping.folder = None  # of a command that this process has run before
    if args is None:
        stopping.explain = explain
        stopping.watch(signals)
    code = exit_code(lambda: command(list(sys.argv[1:] if args is None else args)))
    if args is None:
        stopping.finish(wait=20)
    return code


def exit_code(command: Callable[[], None]) -> int:
    """Call a command; an error becomes one sentence on standard error and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
        _flush_stdout()
    except BrokenPipeError:
        _give_up_stdout()
    except SystemExit:
        raise
    except BaseException as error:  # any: a command never ends with a bare traceback
        stopping.fail(error)  # ends the process where other ranks wait for it
        code, text = explain(error)
        with suppress(OSError, ValueError):  # standard error may be closed, or have no room either
            print_error(text)
        try:
            _flush_stdout()
        except (OSError, ValueError):
            _give_up_stdout()
        return code
    return DONE


def print_error(text: str) -> None:
    """A line on standard error; ``print`` would take standard output where that is closed."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def _flush_stdout() -> None:
    if sys.stdout is not None:  # it is None where the process was started with it closed
        sys.stdout.flush()


def _give_up_stdout() -> None:
    """Nobody reads it, or it has no room: what is left in its buffer must not fail again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
