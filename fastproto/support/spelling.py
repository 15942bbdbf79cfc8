"""Suggestions for misspelt names, and quotation of texts in messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is probably meant: one with the same last part after a dot, or else one spelt alike."""
    known = list(known)
    last, group = _last(name), name.rpartition(".")[0]
    same = [one for one in known if _last(one) == last]
    if same:
        return same[0]
    lasts = {_last(one): one for one in reversed(known) if one.rpartition(".")[0] == group or not group}
    close = get_close_matches(last, lasts, n=1)
    return lasts[close[0]] if close else None


def shown(text: str) -> str:
    """Quote a text for a message, cut to 80 characters."""
    return repr(text) if len(text) <= 80 else f"{text[:80]!r}..."


def _last(name: str) -> str:
    return name.rpartition(".")[2].lstrip("-").replace("-", "_")
