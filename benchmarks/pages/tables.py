"""The tables of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .fits import exponent
from .formats import NOT_MEASURED, duration, escaped, listed, markdown, mebibytes, percent, ratio
from .results import OURS, Results, Row, Size, sizes_of

MANY = 3  # points from which an exponent is fitted


def sized(size: Size) -> str:
    """``C = 1,000, D = 64``."""
    return ", ".join(f"{k} = {v:,}" if isinstance(v, int) else str(v) for k, v in size.items())


def providers_of(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.provider for row in rows))


def op_table(results: Results, op: str, threads: int = 1) -> str:
    """Sizes by providers: the median, and for a peer how many times as long as ours it takes."""
    rows = results.of(op, threads)
    if not rows:
        return NOT_MEASURED
    names = providers_of(rows)
    lines = [[sized(size), *(_cell(results, op, size, name, threads) for name in names)] for size in sizes_of(rows)]
    return markdown([op, *names], lines)


def _cell(results: Results, op: str, size: Size, name: str, threads: int) -> str:
    row = results.one(op, size, name, threads)
    if row is None:
        return NOT_MEASURED
    first = next(
        (each for each in results.of(op, threads) if each.size == size and each.provider.startswith(OURS)), None
    )
    if first is None or name.startswith(OURS) or op.startswith("training"):
        return duration(row.median) + noted(row.info)
    value, error = row.over(first)
    return f"{duration(row.median)} ({ratio(value, error)}{noted(row.info)})"


def noted(info: Mapping[str, Any]) -> str:
    return f", error {info['gradient_error']:.0e}" if "gradient_error" in info else ""


def ceiling_line(results: Results) -> str:
    """The limits of the machine that were measured in the same run, by their fastest rounds."""
    parts = []
    for row in results.of("ceilings", None):
        work = row.info["bytes"] or row.info["flops"]
        unit = "GB/s" if row.info["bytes"] else "GOP/s" if "int8" in row.provider else "GFLOP/s"
        threads = "one thread" if row.threads == 1 else f"{row.threads} threads"
        parts.append(f"{row.provider}, {threads}: {work / min(row.seconds) / 1e9:,.3g} {unit}")
    return "; ".join(parts) or NOT_MEASURED


def exponent_line(results: Results, op: str, letter: str = "C") -> str:
    """Fitted exponents, with their errors, of the providers of an op against a letter of the size."""
    parts = []
    for name, sizes, seconds in series(results, op, letter):
        if len(sizes) >= MANY:
            slope, error = exponent(sizes, seconds)
            parts.append(f"{name} {letter}^({slope:.2f} ± {error:.2f}) from {min(sizes):,.0f} to {max(sizes):,.0f}")
    return ", ".join(parts) or NOT_MEASURED


Series = list[tuple[str, list[float], list[float]]]


def series(results: Results, op: str, letter: str, threads: int = 1, value: str = "seconds") -> Series:
    """For each provider the values against a letter, over the sizes that differ in this letter alone.

    Of several such sets of sizes the largest is taken; providers with fewer than two points are left out.
    """
    rows = [row for row in results.of(op, threads) if letter in row.size]
    others = [_without(row.size, letter) for row in rows]
    counted = {
        rest: len({row.size[letter] for row, o in zip(rows, others, strict=True) if o == rest}) for rest in others
    }
    if not counted:
        return []
    best = max(counted, key=lambda rest: counted[rest])
    found = []
    for name in providers_of(rows):
        chosen = [row for row, rest in zip(rows, others, strict=True) if rest == best and row.provider == name]
        points = sorted((float(row.size[letter]), _value(row, value)) for row in chosen if _value(row, value) > 0)
        if len(points) > 1:
            found.append((name, [x for x, _ in points], [y for _, y in points]))
    return found


def _without(size: Size, letter: str) -> tuple[tuple[str, Any], ...]:
    return tuple((key, value) for key, value in size.items() if key != letter)


def _value(row: Row, value: str) -> float:
    return row.median if value == "seconds" else float(row.info.get(value) or 0.0)


def renewal_table(results: Results) -> str:
    """Sequences of renewals, each warm-started from the last, beside a dense solver that solves each anew."""
    lines = []
    for row in results.of("renewals"):
        if row.provider != OURS:
            continue
        peers = [each for each in results.of("renewals") if each.size == row.size and each is not row]
        moved = row.info["moved"]
        still = [at for at, share in enumerate(moved) if share == 0]
        cells = [sized(row.size), str(len(moved)), str(len(still)), duration(sum(row.seconds))]
        cells.append("; ".join(f"{peer.provider} {_gains(row, peer, still)}" for peer in peers) or NOT_MEASURED)
        lines.append(cells)
    titles = ["renewals", "number", "unchanged", "all of them", "otherwise, ratio of the sums: all, the unchanged ones"]
    return markdown(titles, lines) if lines else NOT_MEASURED


def _gains(row: Row, peer: Row, still: list[int]) -> str:
    unchanged = sum(peer.seconds[at] for at in still) / sum(row.seconds[at] for at in still) if still else None
    return f"{ratio(sum(peer.seconds) / sum(row.seconds))}, {ratio(unchanged)}"


def every_row(results: Results) -> str:
    """Every row with its spread, memory and shares of the machine's limits."""
    titles = ["op", "size", "provider", "threads", "median", "fastest", "rounds", "memory", "of a product", "of a copy"]
    lines = []
    for row in results.rows:
        cells = [row.op, sized(row.size), row.provider, str(row.threads), duration(row.median)]
        cells += [duration(min(row.seconds)), str(len(row.seconds)), mebibytes(row.info.get("extra_mib"))]
        lines.append([*cells, _share_of_product(row), percent(row.info.get("share_of_copy"))])
    return markdown(titles, lines) if lines else NOT_MEASURED


def _share_of_product(row: Row) -> str:
    share, precision = row.info.get("share_of_product"), row.info.get("precision", "float32")
    return percent(share) + ("" if share is None or precision == "float32" else f" of {precision}")


def absent_table(results: Results) -> str:
    lines = [[each["op"], sized(each["size"]), each["provider"], each["reason"]] for each in results.absent]
    unique = [list(line) for line in dict.fromkeys(tuple(line) for line in lines)]
    return markdown(["op", "size", "provider", "why it was not measured"], unique) if unique else "Nothing."


def absent_by_reason(results: Results) -> str:
    """Each reason once, with the providers of each op that it holds for."""
    reasons: dict[str, dict[str, dict[str, None]]] = {}
    for each in results.absent:
        reasons.setdefault(each["reason"], {}).setdefault(each["op"], {})[each["provider"]] = None
    rows = {why: [f"{', '.join(providers)} of {op}" for op, providers in ops.items()] for why, ops in reasons.items()}
    return listed([f"{escaped(why)}: {'; '.join(words)}" for why, words in rows.items()]) or "Nothing."
