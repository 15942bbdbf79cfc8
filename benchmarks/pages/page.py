"""The page of the benchmarks: Markdown from the rows, and the same as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .formats import NOT_MEASURED, listed
from .plots import PLOTS
from .results import Results
from .summary import machine_line, short_table
from .tables import (
    absent_by_reason,
    absent_table,
    ceiling_line,
    every_row,
    exponent_line,
    op_table,
    renewal_table,
)
from .threads import thread_table
from .training import training_tables

INTRODUCTION = """\
The providers of a row run in turn, and the median of the rounds counts. A ratio compares round by round: 2× means that
fastproto needs half the time. ± is half the range over the rounds, from eight on without the lowest and the highest;
without ± there were fewer than three. Short calls have rounds at two moments of the run, as the machine's own speed
changes. Tables show one thread unless they say otherwise."""
SHARES = """\
Shares are of the limits above: of a product in the precision of the row, float32 unless it says another, and of a copy
of memory that no cache holds, so that a share of a copy may be above 100 % where the data stay in the cache."""
STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
td:first-child { white-space: nowrap; }
th { background: #f5f5f5; } img { max-width: 100%; } code { background: #f5f5f5; }"""


@dataclass(frozen=True)
class Section:
    """A heading, its text and its tables: of the ops, or made by a function."""

    title: str
    text: str
    ops: tuple[str, ...]
    picture: str | None = None
    more: Callable[[Results], str] | None = None


def fitted(results: Results, op: str) -> str:
    line = exponent_line(results, op)
    return "" if line == NOT_MEASURED else f"Fitted: {line}."


HEAD = (
    Section(
        "The training step",
        """\
The loss, its gradient and the class means of one batch, without a backbone. fastproto touches only the rows of the
batch, so the time hardly depends on C. The authors' formula re-normalises all C class means at every step. Softmax
and the proxy losses multiply the batch with a C×D weight, forward and backward.""",
        ("head_step", "ipm_loss", "update_class_means", "nearest_prototypes"),
        "training_step",
        lambda results: fitted(results, "head_step"),
    ),
)
TRAINING = (
    Section(
        "A step and an epoch in parts",
        """\
PSC is the usual learned linear layer with softmax. *Data* draws, augments and normalises a batch; the head's part is
the loss, its gradient, and our class means or PSC's update of its weights. Our head adds an assignment, once an epoch.
Shares are of the sum of the parts; an epoch's parts are those of a step times its batches.""",
        (),
        more=training_tables,
    ),
    Section(
        "The authors' loop",
        """\
`fastproto.compat.dl2pa` in their order of calls, beside their formulas in PyTorch and SciPy: a *step* without the
backbone (class means, loss and gradient, all cosines), and a *renewal* of the assignment.""",
        ("dl2pa_step", "dl2pa_renewal"),
    ),
)
SOLVERS = (
    Section(
        "The assignment",
        """\
Each solver is given class means and prototypes; forming the C×C matrix is part of the others' time. *Clustered* means
resemble those of an untrained network, *easy* ones lie near their prototypes. "Unchanged" is the same problem again
with `previous=`. The constants of the solver were chosen on means made like these.""",
        ("assign",),
        "assignment",
        lambda results: f"{fitted(results, 'assign')}\n\n{renewal_table(results)}",
    ),
    Section(
        "Any cost matrix",
        """\
`linear_sum_assignment` with float64 costs: *uniform* in [0, 1), distances between points in the *plane*, *whole*
numbers below 100. fastproto proves its result.""",
        ("linear_sum_assignment",),
    ),
    Section(
        "The Gaussian potential",
        """\
A search for prototypes consists of such passes: for each point the sum of `exp(-t‖w_i - w_j‖²)` over all others, and
its gradient. The symmetric loop visits each pair of blocks once; attention is the same op with another scale. `high`
and `medium` need fast bfloat16. The error is that of the tangent gradient.""",
        ("gaussian_potential", "uniformity_loss"),
        "gaussian_potential",
    ),
)


def complete_page(results: Results, pictures: Mapping[str, str]) -> str:
    """Everything that was measured. ``pictures``: the path of each picture, as the page names it."""
    short = short_table(results)
    parts = ["# Benchmarks", INTRODUCTION, *(["## In short", short] if not short.startswith(NOT_MEASURED) else [])]
    parts += [part for section in (*HEAD, *TRAINING, *SOLVERS) for part in _section(section, results, pictures)]
    parts += [*_threads(results, every=True), *_limits(results, pictures), *_picture("prototypes", pictures)]
    parts += ["## Every row", SHARES, every_row(results), "## Not measured", absent_table(results)]
    return _page([*parts, "## The machine", facts(results)])


def head_page(results: Results, pictures: Mapping[str, str], *more: str) -> str:
    """The summary, the head's ops, the limits of the machine, and further parts."""
    parts = ["# Benchmarks", INTRODUCTION, "## In short", short_table(results)]
    parts += [part for section in HEAD for part in _section(section, results, pictures)]
    parts += [*_limits(results, pictures), "## Not measured", absent_by_reason(results)]
    return _page([*parts, "## The machine", facts(results), *more])


def training_page(results: Results, pictures: Mapping[str, str]) -> str:
    """Training in parts, the authors' loop, and what threads gain."""
    parts = ["# Benchmarks of training and threads", INTRODUCTION]
    parts += [part for section in TRAINING for part in _section(section, results, pictures)]
    return _page([*parts, *_threads(results)])


def solver_page(results: Results, pictures: Mapping[str, str]) -> str:
    """The assignment, and the passes of a search for prototypes."""
    parts = ["# Benchmarks of solvers", INTRODUCTION]
    return _page([*parts, *(part for section in SOLVERS for part in _section(section, results, pictures))])


def _page(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


def _section(section: Section, results: Results, pictures: Mapping[str, str]) -> list[str]:
    tables = [op_table(results, op) for op in section.ops if results.of(op)]
    more = "" if section.more is None else section.more(results).strip()
    parts = [f"## {section.title}", *_picture(section.picture, pictures), section.text, *tables, more]
    return [part for part in parts if part]


def _threads(results: Results, every: bool = False) -> list[str]:
    return ["## Threads", thread_table(results, every)]


def _limits(results: Results, pictures: Mapping[str, str]) -> list[str]:
    parts = ["## The limits of the machine", f"Measured in the same run: {ceiling_line(results)}."]
    return [*parts, *_picture("memory", pictures), *_picture("roofline", pictures)]


def _picture(name: str | None, pictures: Mapping[str, str]) -> list[str]:
    return [f"![{PLOTS[name][0]}]({pictures[name]})"] if name is not None and name in pictures else []


def facts(results: Results) -> str:
    lines = [machine_line(results)]
    for each in results.machines:
        load = f", load {each['load_before']:.2f} before" if "load_before" in each else ""
        lines.append(f"Scale {each['scale']}, commit {each['fastproto_commit']}{load}; {each['versions']}.")
    return listed(lines)


def html_page(text: str, folder: Path) -> str:
    """The Markdown page as one HTML file; its pictures are read from ``folder``."""
    import markdown

    body = markdown.markdown(text, extensions=["tables"])
    for file in sorted(folder.glob("*.png")):
        inside = base64.b64encode(file.read_bytes()).decode()
        body = body.replace(f'src="{escape(file.name)}"', f'src="data:image/png;base64,{inside}"')
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>fastproto: benchmarks</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
