"""The paper's method without its assignment."""

from __future__ import annotations

from fastproto.head import PrototypeHead


class FixedHead(PrototypeHead):
    """:class:`fastproto.PrototypeHead` that keeps its random initial assignment, which the trainer never renews.

    The class means are still updated, so that an assignment from them can be compared. A call of ``reassign`` before
    the first step chooses another assignment to keep.
    """
