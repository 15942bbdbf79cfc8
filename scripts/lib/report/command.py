"""``scripts/report``: writes the tables into the pages and draws the pictures; ``--check`` only compares."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks.pages.pictures import Panel, digest, draw, drawn_from
from lib import initial_assignment
from lib.integrations import tables as integrations
from lib.report import benchmarks, claims, gpu, losses, paper, paper_plots, paper_prototypes, plots
from lib.report.pages import Report, contents, filled, marks, pages, read
from lib.repository import RESULTS, ROOT
from lib.reproduce.tables import TABLES

REPORTS: dict[str, Report] = {  # name in the marks of a page: its report
    "performance": Report(benchmarks.FILES, benchmarks.performance),
    "prototypes": Report(benchmarks.FILES, benchmarks.searches),
    "gpu_passes": Report(("gpu",), gpu.passes),
    "gpu_peers": Report(("gpu",), gpu.peers),
    "gpu_assignment": Report(("gpu",), gpu.solves),
    "gpu_facts": Report(("gpu",), gpu.facts),
    "losses": Report(("records/losses",), losses.accuracy),
    "losses_auto": Report(("records/losses", "loss_powers"), losses.auto),
    "losses_rates": Report(("records/losses",), losses.rates),
    "losses_default_rate": Report(("records/losses",), losses.at_default_rate),
    "losses_schedules": Report(("records/losses",), losses.schedules),
    "losses_renewed": Report(("records/losses",), losses.gains),
    "initial_assignment": Report(("initial_assignment",), initial_assignment.accuracy_table),
    "initial_assignment_gains": Report(("initial_assignment",), initial_assignment.gains_table),
    "integrations": Report(("integrations",), integrations.accuracy_table),
    "integrations_longer": Report(("integrations",), integrations.longer_table),
    "claims": Report(("records", "table7", "figure2"), claims.table, partial=True),
    **{
        name: Report(("records",), partial(paper.accuracy, name))
        for name in TABLES
        if name not in ("losses", "figure4a", "figure4b")
    },
    "runs": Report(("records",), paper.runs),
    "figure4": Report(("records",), partial(paper_plots.pictures, ("figure4a", "figure4b"))),
    "labels_moved": Report(("records",), paper.moved),
    "curves": Report(
        ("records",), partial(paper_plots.pictures, ("curves_d10_d25", "curves_d50_d100", "curves_longer"))
    ),
    "table7": Report(("table7",), paper_prototypes.table7),
    **{name: Report((name,), paper_prototypes.picture(name)) for name in paper_prototypes.PLOTS},
}
PLOTS = {**plots.PLOTS, **paper_plots.PLOTS, **paper_prototypes.PLOTS}


def main(arguments: list[str], description: str, root: Path = ROOT, results: Path = RESULTS) -> int:
    if arguments not in ([], ["--check"]):
        print(description)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    check = bool(arguments)
    stale = [*write_pages(root, results, check=check), *draw_pictures(root, results, check=check)]
    if arguments and stale:
        print(f"{', '.join(stale)}: not made from {results.name}/*.json as it is; run scripts/report", file=sys.stderr)
        return 1
    return 0


def write_pages(root: Path, results: Path, *, check: bool) -> list[str]:
    """Rewrites every marked table and the pages of the benchmarks.

    Returns the pages that differed and the tables that no page shows.
    """
    stale, shown = [], set()
    for page in pages(root):
        before = page.read_text(encoding="utf-8")
        shown |= set(marks(before))
        after = _anew(page.relative_to(root), before, results)
        if after == before:
            continue
        stale.append(str(page.relative_to(root)))
        if not check:
            page.write_text(after, encoding="utf-8")
    return stale + [f"no page shows the table {name}" for name in REPORTS if name not in shown]


def _anew(page: Path, before: str, results: Path) -> str:
    if page not in benchmarks.PAGES:
        return filled(before, REPORTS, results)
    found = read(benchmarks.FILES, results)
    return before if found is None else benchmarks.PAGES[page](*found)


def draw_pictures(root: Path, results: Path, *, check: bool) -> list[str]:
    """Draws every picture whose numbers changed. Returns the pictures that differed."""
    stale = []
    for name, panels in all_pictures(results).items():
        file = root / "docs" / "pictures" / f"{name}.png"
        if drawn_from(file) == digest(panels):
            continue
        stale.append(str(file.relative_to(root)))
        if not check:
            draw(panels, file)
    return stale


def all_pictures(results: Path) -> dict[str, list[Panel]]:
    """The panels of each picture whose results are there."""
    found = benchmarks.pictures(results)
    for name, (source, plot) in PLOTS.items():
        measured = contents(results, source)
        panels = [] if measured is None else plot(measured)
        if panels:
            found[name] = panels
    return found
