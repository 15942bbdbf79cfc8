"""The page of the benchmarks: Markdown from the rows, and the same as one HTML file with its pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .formats import listed
from .plots import PLOTS
from .results import Results
from .summary import machine_line, short_table
from .tables import (
    absent_line,
    absent_table,
    ceiling_line,
    every_row,
    exponent_line,
    op_table,
    renewal_table,
    thread_table,
)

INTRODUCTION = """\
The providers of a row run in turn, and the median of the rounds counts. A ratio compares round by round: 2× means that
fastproto needs half the time; ± is half the range of the middle 80 % of the rounds. Tables show one thread unless they
say otherwise."""
STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
th { background: #f5f5f5; } img { max-width: 100%; } code { background: #f5f5f5; }"""


@dataclass(frozen=True)
class Section:
    """A heading, its text and its tables: of the ops, or made by a function."""

    title: str
    text: str
    ops: tuple[str, ...]
    picture: str | None = None
    more: Callable[[Results], str] | None = None


SECTIONS = (
    Section(
        "The training step",
        """\
The loss, its gradient and the class means of one batch, without a backbone. fastproto touches only the rows of the
batch, so the time hardly depends on C. The authors' formula re-normalises all C class means at every step. Softmax
and the proxy losses multiply the batch with a C×D weight, forward and backward.""",
        ("head_step", "ipm_loss", "update_class_means", "nearest_prototypes"),
        "training_step",
    ),
    Section(
        "A step and an epoch in parts",
        """\
PSC is the usual learned linear layer with softmax. The backbone's time is that of both; our head adds an assignment,
once an epoch.""",
        ("training_step", "training_epoch"),
    ),
    Section(
        "The assignment",
        """\
Each solver is given class means and prototypes; forming the C×C matrix is part of the others' time. *Clustered* means
resemble those of an untrained network, *easy* ones lie near their prototypes. "Unchanged" is the same problem again
with `previous=`. The constants of the solver were chosen on means made like these.""",
        ("assign",),
        "assignment",
        lambda results: f"Fitted: {exponent_line(results, 'assign')}.\n\n{renewal_table(results)}",
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


def markdown_page(results: Results, pictures: Mapping[str, str], *, complete: bool) -> str:
    """The page.

    Args:
        pictures: the path of each picture, as the page names it.
        complete: with every row, and every row that was not measured.
    """
    parts = ["# Benchmarks", INTRODUCTION, "## In short", short_table(results)]
    for section in SECTIONS:
        tables = [op_table(results, op) for op in section.ops if results.of(op)]
        parts += [f"## {section.title}", *_picture(section.picture, pictures), section.text, *tables]
        if section.more is not None:
            parts.append(section.more(results))
    parts += ["## Threads", thread_table(results), "## The limits of the machine"]
    parts += [f"Measured in the same run: {ceiling_line(results)}.", *_picture("memory", pictures)]
    parts += _picture("roofline", pictures)
    if complete:
        parts += [*_picture("prototypes", pictures), "## Every row", every_row(results)]
        parts += ["## Not measured", absent_table(results)]
    else:
        parts += ["## Not measured", absent_line(results)]
    parts += ["## The machine", facts(results)]
    return "\n\n".join(parts) + "\n"


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
    head = f'<meta charset="utf-8"><title>fastproto: benchmarks</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
