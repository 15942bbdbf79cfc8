"""The exit codes of the commands, and which error has which."""

from __future__ import annotations

DONE = 0
UNEXPECTED = 1  # an unexpected error
BAD_INPUT = 2  # a setting or a file that no run can use, a file that cannot be written, too little memory
INTERRUPTED = 130  # SIGINT, Ctrl-C


def ended_by(number: int) -> int:
    """The exit code of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM (sent when a container stops)."""
    return 128 + number


def code_of(error: BaseException) -> int:
    """The exit code of a command that this error ends."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    named = isinstance(error, ValueError | ImportError | OSError) or type(error).__name__ == "MisconfigurationException"
    return BAD_INPUT if named or is_out_of_memory(error) else UNEXPECTED


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the machine or of a device ran out, by any library's error."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "allocate memory" in str(error)
