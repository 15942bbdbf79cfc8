"""Converts an error into an exit code and one sentence for standard error.

The traceback precedes the sentence if the environment variable FASTPROTO_TRACEBACK is set.
"""

from __future__ import annotations

import os
import traceback

from fastproto.support.exit_codes import INTERRUPTED, UNEXPECTED, code_of, is_out_of_memory
from fastproto.support.stopping import how_to_go_on, stopping


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and text of an error: one sentence, after the traceback if FASTPROTO_TRACEBACK is set."""
    code = code_of(error)
    if code == INTERRUPTED:
        advice = how_to_go_on(str(error))
        return code, "\ninterrupted" + (f"; {advice}" if advice else "")
    asked = bool(os.environ.get("FASTPROTO_TRACEBACK"))
    trace = "".join(traceback.format_exception(error)) if asked else ""
    return code, f"{trace}error: {_sentence(error, code)}"


def _sentence(error: BaseException, code: int) -> str:
    message, kind = one_line(error), type(error).__name__
    if is_out_of_memory(error):
        less = "data.batch_size (--batch-size without training), image size, C or D"
        return f"not enough memory ({message or kind}); use a smaller {less}"
    if code == UNEXPECTED:
        return f"unexpected {kind}: {message}; set FASTPROTO_TRACEBACK=1 to see where, and please report it"
    advice = how_to_go_on(stopping.folder) if isinstance(error, OSError) else None
    return (message or kind) + (f": {advice}" if advice else "")


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the traceback that torch adds to an error of a data loader."""
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())
