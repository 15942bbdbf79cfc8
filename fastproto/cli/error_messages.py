"""Converts an error into an exit code and one sentence for standard error.

The traceback precedes the sentence if the environment variable FASTPROTO_TRACEBACK is set.
"""

from __future__ import annotations

import os
import traceback

from fastproto.support.exit_codes import BAD_INPUT, INTERRUPTED, UNEXPECTED
from fastproto.support.stopping import how_to_go_on, stopping


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and text of an error: one sentence, after the traceback if FASTPROTO_TRACEBACK is set."""
    if isinstance(error, KeyboardInterrupt):
        advice = how_to_go_on(str(error))
        return INTERRUPTED, "\ninterrupted" + (f"; {advice}" if advice else "")
    code, sentence = _sentence(error)
    asked = bool(os.environ.get("FASTPROTO_TRACEBACK"))
    return code, ("".join(traceback.format_exception(error)) if asked else "") + f"error: {sentence}"


def _sentence(error: BaseException) -> tuple[int, str]:
    message, kind = one_line(error), type(error).__name__
    memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "allocate memory" in message
    if memory:
        return BAD_INPUT, f"not enough memory ({message or kind}); use a smaller data.batch_size, image size, C or D"
    advice = how_to_go_on(stopping.folder) if isinstance(error, OSError) else None
    if advice is not None:
        return BAD_INPUT, f"{message or kind}: {advice}"
    if isinstance(error, ValueError | ImportError | OSError) or kind == "MisconfigurationException":
        return BAD_INPUT, message or kind
    return UNEXPECTED, f"unexpected {kind}: {message}; set FASTPROTO_TRACEBACK=1 to see where, and please report it"


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the traceback that torch adds to an error of a data loader."""
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
