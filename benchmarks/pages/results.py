"""The rows of the JSON files that ``--benchmark-json`` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

from .fits import ratio_of, ratios_of

OURS = "fastproto"
Size = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One provider at one size on a number of threads: seconds of a call in each round."""

    op: str
    size: Size
    provider: str
    threads: int
    seconds: list[float]
    info: Mapping[str, Any]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def by_visit(self) -> list[list[float]]:
        """The rounds of each visit to the group."""
        rounds = iter(self.seconds)
        return [list(islice(rounds, count)) for count in self.info.get("visits", [len(self.seconds)])]

    def each_over(self, other: Row) -> list[float]:
        """How many times as long as the other row this one takes, round by round."""
        return ratios_of(self.by_visit, other.by_visit)

    def over(self, other: Row) -> tuple[float, float | None]:
        """How many times as long as the other row this one takes, with the error."""
        return ratio_of(self.by_visit, other.by_visit)


@dataclass(frozen=True)
class Results:
    """The rows of one or more files, and what was not measured."""

    rows: list[Row]
    absent: list[Mapping[str, Any]]
    machines: list[Mapping[str, Any]]

    def of(self, op: str, threads: int | None = 1) -> list[Row]:
        return [row for row in self.rows if row.op == op and threads in (None, row.threads)]

    def one(self, op: str, size: Size, provider: str, threads: int = 1) -> Row | None:
        """The row whose size has at least these letters."""
        rows = (row for row in self.of(op, threads) if row.provider == provider and size.items() <= row.size.items())
        return next(rows, None)

    @property
    def ops(self) -> list[str]:
        return list(dict.fromkeys(row.op for row in self.rows))

    @property
    def most_threads(self) -> int:
        return max((row.threads for row in self.rows), default=1)


def sizes_of(rows: Iterable[Row]) -> list[Size]:
    return [dict(items) for items in dict.fromkeys(tuple(row.size.items()) for row in rows)]


def read(*files: Mapping[str, Any]) -> Results:
    """Reads the contents of files; a row that several of them have is that of the first."""
    rows: dict[str, Row] = {}
    absent: dict[str, Mapping[str, Any]] = {}
    for file in files:
        for bench in file["benchmarks"]:
            info = bench["extra_info"]
            row = Row(info["op"], info["size"], info["provider"], info["threads"], bench["stats"]["data"], info)
            rows.setdefault(str((row.op, row.size, row.provider, row.threads)), row)
        for each in file.get("not_measured", []):
            absent.setdefault(str((each["op"], each["size"], each["provider"], each["threads"])), each)
    missing = [each for key, each in absent.items() if key not in rows]
    return Results(list(rows.values()), missing, [file["fastproto"] for file in files])
