"""The table of one thread beside all, with the reason where threads gain little."""

from __future__ import annotations

from scipy.stats import binomtest

from .formats import NOT_MEASURED, duration, markdown, percent, ratio
from .results import OURS, Results, Row
from .tables import sized

ENOUGH = 1.7  # gain of two threads below which the reason is given
CHANCE = 0.01  # of rounds that differ so much in sign where threads make no difference
NEAR = 0.9  # of the gain of the machine's limit: the op itself loses little
Pair = tuple[Row, Row]


def thread_table(results: Results, every: bool = False) -> str:
    """The limits of the machine and our ops, in one thread and in all.

    Of an op the longest row is shown; ``every`` shows all.
    """
    most = results.most_threads
    found = {op: [pair for pair in _pairs(results, op, most) if _ours(pair)] for op in results.ops}
    shown = [pair for pairs in found.values() for pair in (pairs if every else pairs and [max(pairs, key=_longest)])]
    if most == 1 or not shown:
        return NOT_MEASURED
    lines = [_line(results, pair, most) for pair in (*_pairs(results, "ceilings", most), *shown)]
    return markdown(["", "one thread", f"{most} threads", "gain", "efficiency", "why not more"], lines)


def _pairs(results: Results, op: str, most: int) -> list[Pair]:
    beside = ((row, results.one(op, row.size, row.provider, most)) for row in results.of(op))
    return [(one, all_) for one, all_ in beside if all_ is not None and most > 1]


def _ours(pair: Pair) -> bool:
    return pair[0].provider.startswith(OURS)


def _longest(pair: Pair) -> float:
    return pair[0].median


def _line(results: Results, pair: Pair, most: int) -> list[str]:
    one, all_ = pair
    gain, error = one.over(all_)
    why = [_verdict(one.each_over(all_), most), "" if gain >= ENOUGH * most / 2 else _reason(results, one, gain, most)]
    name = f"{one.op}, {one.provider}" + ("" if one.op == "ceilings" else f": {sized(one.size)}")
    times = [duration(one.median), duration(all_.median), ratio(gain, error), percent(gain / most)]
    return [name, *times, "; ".join(part for part in why if part)]


def _verdict(gains: list[float], most: int) -> str:
    """What the rounds show where threads gain nothing, by a sign test; of fewer than eight rounds nothing is said."""
    slower = sum(gain < 1 for gain in gains)
    if len(gains) < 8:
        return ""
    if binomtest(slower, len(gains)).pvalue > CHANCE:
        return "no difference seen"
    return f"slower with {most} threads" if 2 * slower > len(gains) else ""


def _reason(results: Results, row: Row, gain: float, most: int) -> str:
    """The limit that is nearest to the op, if it gains as little; else what of the op runs in one thread."""
    if row.op == "ceilings":
        return "this machine"
    product, copy = (row.info.get(f"share_of_{name}", 0.0) for name in ("product", "copy"))
    name = "copy" if copy > product else f"product, {row.info.get('precision')}"
    limit = next((pair for pair in _pairs(results, "ceilings", most) if pair[0].provider == name), None)
    if product + copy and limit is not None and gain >= NEAR * limit[0].over(limit[1])[0]:
        return f"the limit itself ({name}) gains {ratio(*limit[0].over(limit[1]))}"
    return str(row.info.get("serial_part", ""))
