"""The paper's method without its assignment."""

from __future__ import annotations

from fastproto.head import PrototypeHead


class FixedHead(PrototypeHead):
    """:class:`fastproto.PrototypeHead` whose labels keep the (random) prototypes that training begins with.

    The class means are kept up all the same: they show what an assignment would have seen. The trainer never renews
    the assignment of this head; ``reassign`` before the first step chooses another one to be kept.
    """
