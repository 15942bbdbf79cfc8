"""The table of benchmarks/bench_head.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, machine, markdown, ratio


def table(found: Record) -> str:
    rows = []
    for cell in found["cells"]:
        got = cell["providers"]
        line = [f"{cell['C']:,}", duration(got["ours"]["median_s"])]
        for name in ("authors", "softmax"):
            peer = got.get(name)
            line.append(NOT_MEASURED if peer is None else f"{duration(peer['median_s'])} ({ratio(peer['over_ours'])})")
        rows.append(line)
    first, top = found["cells"][0], found["prediction"]
    title = f"loss, gradient, class means; B = {first['B']:,}, D = {first['D']}: C"
    return markdown([title, "fastproto", "the authors' formula in torch", "softmax cross-entropy"], rows) + (
        f"\n\n{machine(found['machine'])}. From 1,000 to 100,000 classes the step takes "
        f"{found['step_100k_over_1k']:.1f} times as long, because rows then come from the memory: reading the batch's "
        f"prototypes alone takes {duration(found['gather_s']['100000'])} instead of "
        f"{duration(found['gather_s']['1000'])}. The {top['k']} nearest of {top['C']:,} prototypes for "
        f"{top['B']:,} samples, D = {top['D']}: {ratio(top['speedup'])} the speed of matmul and topk "
        f"({ratio(top.get('speedup_two_threads'))} in two threads) in "
        f"{100 * top['share_of_memory']:.1f} % of their extra memory."
    )
