"""The exit codes of the commands."""

from __future__ import annotations

DONE = 0
UNEXPECTED = 1  # an unexpected error
BAD_INPUT = 2  # a setting or a file that no run can use, a file that cannot be written, too little memory
INTERRUPTED = 130  # SIGINT, Ctrl-C
TERMINATED = 143  # SIGTERM, what stopping a container sends


def ended_by(number: int) -> int:
    """The exit code of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number
