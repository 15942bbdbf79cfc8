"""The pages docs/benchmarks*.md, the short table of the README and the table of searches for prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.pages.page import head_page, solver_page, training_page
from benchmarks.pages.pictures import Panel
from benchmarks.pages.plots import PLOTS
from benchmarks.pages.results import Results, read
from benchmarks.pages.searches import search_table
from benchmarks.pages.summary import short_table
from lib.report.pages import read as contents_of

FILES = ("small", "full")
"""Names in benchmarks/results; rows that both have are those of the first."""
SHOWN = {name: f"pictures/{name}.png" for name in PLOTS}
COMMANDS = """\
`scripts/report` writes this page from {files}. Elsewhere:
[training and threads](benchmarks-training.md), [solvers](benchmarks-solvers.md), [GPU](backends-gpu.md#measured),
[what a search for prototypes reaches](prototypes.md#what-a-search-reaches).

```sh
pip install '.[bench]'
fastproto-bench --scale small --out report    # times, tables and plots of your machine
{measured}
scripts/report
pytest benchmarks --benchmark-save=before     # and after a change:
pytest benchmarks --benchmark-compare --benchmark-compare-fail=min:30%
```

DIR holds CIFAR-100, as an image folder or as torchvision's files; without it the rows of that data set are missing.
Before the comparison fails, the groups with slower rows are timed again, up to three times: a machine may be slow for a
moment. The limits of the machine are not compared.
"""


def head(*contents: Any) -> str:
    """The whole of docs/benchmarks.md."""
    return head_page(read(*contents), SHOWN, "## Run them yourself", commands(*contents))


def commands(*contents: Any) -> str:
    """How the files of these contents, and a page from them, are made."""
    scales = list(dict.fromkeys(each["fastproto"]["scale"] for each in contents))
    files = [f"benchmarks/results/{scale}.json" for scale in scales]
    run = "pytest benchmarks --scale {} --cifar100 DIR --benchmark-json {}"
    measured = "\n".join(run.format(scale, file) for scale, file in zip(scales, files, strict=True))
    named = " and ".join(f"`{file}`" for file in files)
    return COMMANDS.strip().format(files=named, measured=measured)


def training(*contents: Any) -> str:
    """The whole of docs/benchmarks-training.md."""
    return training_page(read(*contents), SHOWN)


def solvers(*contents: Any) -> str:
    """The whole of docs/benchmarks-solvers.md."""
    return solver_page(read(*contents), SHOWN)


PAGES = {
    Path("docs") / "benchmarks.md": head,
    Path("docs") / "benchmarks-training.md": training,
    Path("docs") / "benchmarks-solvers.md": solvers,
}


def performance(*contents: Any) -> str:
    return short_table(read(*contents))


def searches(*contents: Any) -> str:
    return search_table(read(*contents))


def pictures(results: Path) -> dict[str, list[Panel]]:
    """The panels of each picture; none while there are no results."""
    contents = contents_of(FILES, results)
    if contents is None:
        return {}
    found: Results = read(*contents)
    return {name: panels for name, (_, plot) in PLOTS.items() if (panels := plot(found))}
