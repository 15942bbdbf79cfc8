"""Compiles what the timed steps launch, while the tests run, so that they find it in the caches on disk."""

from __future__ import annotations

from lib.gpu_check.measuring import only_compile
from lib.gpu_check.steps import Entries, load

COMPILED = ("speed", "peers", "score_passes", "head", "training", "functions")


def variants(dry: bool) -> Entries:
    only_compile()
    for name in COMPILED:
        yield name, sum(1 for _ in load(name)(dry))
