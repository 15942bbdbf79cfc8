"""The table of benchmarks/bench_head.py."""

from __future__ import annotations

from lib.repository import NOT_MEASURED, Record
from lib.tables import duration, listed, machine, markdown, ratio


def table(found: Record) -> str:
    first = found["cells"][0]
    title = f"loss, gradient, class means; B = {first['B']:,}, D = {first['D']}: C"
    titles = [title, "fastproto", "the authors' formula in torch", "softmax cross-entropy"]
    facts = [
        f"{machine(found['machine'])}.",
        f"From 1,000 to 100,000 classes the step takes {found['step_100k_over_1k']:.1f} times as long. Reading the "
        f"batch's prototypes and nothing else takes {duration(found['gather_s']['1000'])} and "
        f"{duration(found['gather_s']['100000'])}: at 100,000 classes they come from memory, not from the cache.",
        prediction(found["prediction"]),
    ]
    return f"{markdown(titles, [row(cell) for cell in found['cells']])}\n\n{listed(facts)}"


def row(cell: Record) -> list[str]:
    got = cell["providers"]
    line = [f"{cell['C']:,}", duration(got["ours"]["median_s"])]
    for name in ("authors", "softmax"):
        peer = got.get(name)
        line.append(NOT_MEASURED if peer is None else f"{duration(peer['median_s'])} ({ratio(peer['over_ours'])})")
    return line


def prediction(top: Record) -> str:
    return (
        f"The {top['k']} nearest of {top['C']:,} prototypes for {top['B']:,} samples, D = {top['D']}: "
        f"{ratio(top['speedup'])} as fast as matmul and topk ({ratio(top.get('speedup_two_threads'))} in two threads), "
        f"with {100 * top['share_of_memory']:.1f} % of their extra memory."
    )
