"""Table 7 and Figure 2 of the paper: the prototypes themselves.

Our numbers are measured when the command runs; unknown numbers of the paper are printed as "not available".
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from fastproto.prototypes import (
    OBJECTIVES,
    Prototypes,
    Quality,
    estimate_prototypes,
    load_prototypes,
    measure_prototypes,
)
from fastproto.support.options import SgdForm
from lib.repository import Record

NO_PUBLISHED = "not measured: --published was not given"
AUTHORS = "authors' published file"


# --- Table 7: largest and smallest cosine of the prototypes ----------------------------------------------------------

TABLE_7: dict[tuple[int, int], tuple[str, str]] = {
    (100, 10): ("not available", "not available"),
    (100, 50): ("0.01", "-1.0"),
    (100, 100): ("0", "-0.01"),
    (200, 100): ("not available", "not available"),
    (200, 200): ("not available", "not available"),
    (1000, 512): ("not available", "not available"),
}


def table7(published: Path | None, sizes: dict[tuple[int, int], tuple[str, str]] = TABLE_7) -> list[Record]:
    """For each (C, D): the paper's numbers, its gradient descent run here, the authors' file, and fastproto."""
    rows: list[Record] = []
    print(f"{'C':>6}{'D':>5}  {'what':<36}{'max cosine':>14}{'min cosine':>15}{'L_uni, t = 2':>14}  passes")
    for size, (high, low) in sizes.items():
        add(rows, size, "paper", {"max_cosine": high, "min_cosine": low})
        found, missing = from_file(published, *size)
        add(rows, size, AUTHORS, found or {"missing": missing})
        for form in ("within_batch", "eq5"):
            descent = estimate_prototypes(*size, method="sgd", form=form)
            add(rows, size, f"SGD, lr 0.1, 1000 steps, {form}", descent)
        for objective in OBJECTIVES:
            add(rows, size, f"fastproto, {objective}", estimate_prototypes(*size, objective=objective, effort="best"))
    print(
        "Differences: (100, 50) and (100, 100) have closed forms, which fastproto uses: 0 and -1, -1/99.\n"
        "The paper's descent with its published settings does not reach the paper's own figures."
    )
    return rows


def add(rows: list[Record], size: tuple[int, int], what: str, found: Prototypes | Record) -> None:
    """Add a row and print it."""
    if isinstance(found, Prototypes):
        found = {"method": found.method, "passes": found.passes, **figures(found.quality)}
    row = {"classes": size[0], "dim": size[1], "what": what, **found}
    rows.append(row)
    start = f"{size[0]:>6}{size[1]:>5}  {what:<36}"
    if "missing" in row:
        print(start, row["missing"], flush=True)
        return
    cells = [shown(row.get(key)) for key in ("max_cosine", "min_cosine", "uniformity")]
    spent = f"{row['passes']} ({row['method']})" if "passes" in row else ""
    print(f"{start}{cells[0]:>14}{cells[1]:>15}{cells[2]:>14}  {spent}", flush=True)


def from_file(published: Path | None, classes: int, dim: int) -> tuple[Prototypes | None, str]:
    """(the authors' prototypes of this size or None, the reason for None)."""
    if published is None:
        return None, NO_PUBLISHED
    file = published / f"{classes}centers_{dim}dim.pth"
    if not file.is_file():
        return None, f"not measured: the folder of published files has no {file.name}"
    return load_prototypes(file), ""


# --- Figure 2: what the average angle hides, and quality over the optimisation ---------------------------------------


def figure2(published: Path | None, passes: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)) -> list[Record]:
    """Average angle and least cosine distance of sets of 100 points in 3 dimensions, then over the optimisation."""
    rows: list[Record] = []
    print("100 points in 3 dimensions: the average angle (APAD) cannot tell good from degenerate")
    print(f"{'set':<38}{'APAD, degrees':>14}{'least cosine distance':>23}{'L_uni, t = 2':>14}")
    sets = random_and_degenerate()
    found, missing = from_file(published, 100, 3)
    if found is not None:
        sets[AUTHORS] = [found.vectors]
    for objective in OBJECTIVES:
        sets[f"fastproto, {objective}"] = [estimate_prototypes(100, 3, objective=objective, effort="best").vectors]
    for name, members in sets.items():
        rows.append({"part": "sets", "what": name, **averages(members)})
        print(f"{name:<38}{figure2_cells(rows[-1])}")
    if found is None:
        print(f"{AUTHORS:<38}{missing}")
    print("\n100 points in 10 dimensions, over the optimisation")
    print(f"{'passes':>7}  {'what':<30}{'APAD, degrees':>14}{'least cosine distance':>23}{'L_uni, t = 2':>14}")
    for form in (None, "eq5", "within_batch"):
        what = "fastproto, L-BFGS" if form is None else f"SGD, lr 0.1, {form}"
        for count in passes:
            quality = after(count, form).quality
            rows.append({"part": "passes", "what": what, "passes": count, **figures(quality)})
            print(f"{count:>7}  {what:<30}{figure2_cells(rows[-1])}")
    print("The paper's values for Figure 2: not available.")
    return rows


def random_and_degenerate() -> dict[str, list[Tensor]]:
    """Sets of 100 points in 3 dimensions."""
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    random = [unit(torch.randn(100, 3, generator=generator), dim=1) for _ in range(100)]
    poles = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]]).repeat_interleave(50, 0)
    return {
        "random (mean of 100)": random,
        "random, centred (mean of 100)": [unit(w - w.mean(0), dim=1) for w in random],
        "random opposite pairs (mean of 100)": [torch.cat([w[:50], -w[:50]]) for w in random],
        "50 copies of u and 50 of -u": [poles],
    }


def averages(members: list[Tensor]) -> dict[str, float]:
    found = [figures(measure_prototypes(w)) for w in members]
    return {key: sum(f[key] for f in found) / len(found) for key in found[0]}


def after(passes: int, form: SgdForm | None) -> Prototypes:
    """Prototypes after so many passes of fastproto (``form`` None), or steps of the paper's gradient descent."""
    if form is None:
        return estimate_prototypes(100, 10, effort="best", cache=False, max_passes=passes)
    return estimate_prototypes(100, 10, cache=False, method="sgd", form=form, iterations=passes)


def figure2_cells(row: Record) -> str:
    return f"{row['mean_angle']:>14.3f}{row['distance']:>23.5f}{row['uniformity']:>14.6f}"


def draw_figure2(rows: list[Record], out: Path) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = picture.subplots(1, 2)
    for row in rows:
        if row["part"] == "sets":
            left.plot(row["mean_angle"], max(row["distance"], 1e-7), "o", label=row["what"])
    left.set(xlabel="average angle (degrees)", ylabel="least cosine distance (0 is drawn at 1e-7)", yscale="log")
    left.set_title("100 points, D = 3")
    left.legend(frameon=False, fontsize=8)
    for what in dict.fromkeys(row["what"] for row in rows if row["part"] == "passes"):
        line = [row for row in rows if row["what"] == what and row["part"] == "passes"]
        right.plot([row["passes"] for row in line], [row["uniformity"] for row in line], "-o", label=what)
    right.set(xlabel="passes over all pairs", ylabel="L_uni (t = 2)", xscale="log")
    right.set_title("100 points, D = 10")
    right.legend(frameon=False, fontsize=8)
    picture.savefig(out, dpi=130)


def figures(quality: Quality) -> dict[str, float]:
    return {
        "uniformity": quality.uniformity,
        "max_cosine": quality.max_cosine,
        "min_cosine": quality.min_cosine,
        "mean_angle": quality.mean_angle,
        "distance": 1 - quality.max_cosine,
    }


def shown(value: float | str | None) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value + 0.0:.5f}"
    return "" if value is None else str(value)
