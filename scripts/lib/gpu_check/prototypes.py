"""The search for prototypes on the device."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time

from fastproto.prototypes import estimate_prototypes
from lib.gpu_check.measuring import device
from lib.gpu_check.steps import Entries


def prototypes(dry: bool) -> Entries:
    if importlib.util.find_spec("scipy") is None:
        yield "seconds", "not measured: a search needs SciPy, which is not installed"
        return
    count, dim = (20, 8) if dry else (10_000, 512)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for attempt in ("first", "second"):  # the first one compiles
            begin = time.perf_counter()
            found = estimate_prototypes(
                count,
                dim,
                effort="best",
                seed=0,
                device=device(),
                cache=False,
                time_limit=20.0,
                max_passes=30 if dry else None,
            )
            yield f"{attempt}_seconds", time.perf_counter() - begin
            yield "uniformity", float(found.quality.uniformity)
            yield "method", f"{found.method}, {found.passes} passes"
