"""The paper's tables and figures as the pages show them, from records that no run has made."""

from __future__ import annotations

from functools import partial

import pytest

from lib.report import losses, paper, paper_plots, paper_prototypes
from lib.report.paper_plots import PLOTS, figure4a, figure4b, pictures

from .made_up import made_up


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_ours_stands_beside_the_published_and_not_run_where_it_was_not() -> None:
    records = [made_up("psc", 10, 0.25), made_up("psc", 10, 0.35, seed=1)]
    records.append(made_up("psc", 50, 0.5, recipe="resnet32", epochs=30))
    found = rows(paper.accuracy("table1", records))
    assert [row for row in found if row[:2] == ["cifar100", "psc"]] == [
        [
            "cifar100",
            "psc",
            "cnn, 20 epochs",
            "30.00\xa0±\xa07.07 (25.67)",
            *(f"not run ({x})" for x in ("60.00", "60.60", "62.10")),
            "",
        ],
        [
            "cifar100",
            "psc",
            "ResNet-32, 30 epochs",
            "not run (25.67)",
            "not run (60.00)",
            "50.00 (60.60)",
            "not run (62.10)",
            "",
        ],
    ]
    assert ["cifar100", "linear", "ResNet-32, 250 epochs", *["not run"] * 4, ""] in found
    assert [row[0] for row in found][-5:] == ["imagenet200-32px"] * 5


def test_bfloat16_is_named_and_mixed_with_no_float32() -> None:
    half = partial(made_up, precision="bf16-mixed")
    records = [made_up("dynamic", 10, 0.25), half("dynamic", 10, 0.5), half("dynamic", 25, 0.5)]
    tests = {row[2]: row[3:5] for row in rows(paper.accuracy("figure4a", records)) if row[1] == "dynamic"}
    assert tests == {
        "cnn, 20 epochs": ["25.00 (57.21)", "not run (64.63)"],
        "cnn, 20 epochs, bf16-mixed": ["50.00 (57.21)", "50.00 (64.63)"],
    }
    (panel,) = figure4a(records)
    assert panel.title == "CIFAR-100, cnn, 20 epochs, bf16-mixed" and panel.lines[0].y == [50, 50]
    study = partial(made_up, "linear", 10, table="losses", epochs=10)
    assert "25.0" in losses.accuracy([study(0.25), study(0.5, precision="bf16-mixed")])


def test_word_vectors_are_named() -> None:
    run = made_up("word2vec", 10, 0.5, settings={"head.words": "encoder.npz"})
    assert paper.accuracy("table1", [run]).endswith("\n\n- The word vectors of our runs: `encoder.npz`.")
    assert "word vectors" not in paper.accuracy("table1", [made_up("hpn", 10, 0.5)])


def test_a_run_on_the_cpu_has_no_published_figure_where_backbones_differ() -> None:
    found = rows(paper.accuracy("table3", [made_up("psc", 512, 0.5, table="table3", data="imagenet")]))
    assert found == [
        ["imagenet", "psc", "cnn, 20 epochs", "50.00"],
        ["imagenet", "dynamic", "ResNet-50, 100 epochs", "not run (77.47)"],
        ["imagenet", "dynamic", "Swin-T, 100 epochs", "not run (77.26)"],
    ]


def test_long_tails_are_shown_by_imbalance_and_by_kind_of_class() -> None:
    shots = {"many": {"classes": 5, "accuracy": 0.5}, "few": {"classes": 5, "accuracy": 0.125}}
    tail = partial(made_up, "etf", 128, table="table5", data="cifar100-lt-0.01")
    text = paper.accuracy("table5", [tail(0.25, shots=shots)])
    assert "imagenet-lt" in text and "few, 19 or fewer" in text
    etf = [row for row in rows(text) if row[1] == "etf"]
    assert etf[0] == ["cifar100-lt", "etf", "cnn, 20 epochs", "not run (40.90)", "25.00 (45.30)", "not run (50.40)", ""]
    assert etf[1] == ["cifar100-lt-0.01", "etf", "cnn, 20 epochs", "50.00", "", "12.50"]
    assert "few" not in paper.accuracy("table5", [tail(0.25)])  # of a record that does not tell


def test_what_was_run_is_named_once_with_its_speed() -> None:
    records = [made_up("psc", 10, 0.5, train_images=45000), made_up("linear", 10, 0.5, train_images=45000, seed=1)]
    assert paper.runs(records) == (
        "- Ours: cnn, adamw 0.01, 20 epochs, on cpu, commit unknown, seeds 0, 1; 10.0 s an epoch, 4,500 images/s."
    )
    assert paper.runs([made_up("psc", 10, 0.5, table="losses")]) == "- Ours: not run."


def test_figures_show_the_budget_of_most_runs() -> None:
    records = [made_up(method, dim, 0.4) for method in ("dynamic",) for dim in (10, 25)]
    records += [made_up("fixed", dim, 0.3, table="table2") for dim in (25, 10)]
    records += [made_up("dynamic", dim, 0.6, recipe="resnet32", epochs=250) for dim in (10, 25)]
    (panel,) = figure4a(records)
    assert panel.title == "CIFAR-100, cnn, 20 epochs"
    assert [(line.name, line.x, line.y) for line in panel.lines] == [
        ("dynamic", [10, 25], [40, 40]),
        ("fixed", [10, 25], [30, 30]),
    ]
    (panel,) = figure4b(records)
    assert panel.title == "CIFAR-100, ResNet-32, 250 epochs"  # as many runs as of cnn: the longer
    assert [(line.name, line.x, line.y) for line in panel.lines] == [
        (f"D = {dim}", [2, 3, 4], [50, 25, 12.5]) for dim in (10, 25)
    ]
    shares = ["50.00 (epoch 2)", "25.00 (epoch 3)", "12.50 (epoch 4)"]
    assert rows(paper.moved([*records, made_up("dynamic", 10, 0.4, seed=1)])) == [
        [dim, made_with, *shares] for dim in ("10", "25") for made_with in ("cnn, 20 epochs", "ResNet-32, 250 epochs")
    ]


def test_longer_trainings_have_curves_of_their_own() -> None:
    usual = [made_up(method, dim, 0.4) for method in ("dynamic", "psc") for dim in (10, 25)]
    names = ("curves_d10_d25", "curves_longer")
    assert PLOTS["curves_longer"][1](usual) == PLOTS["curves_longer"][1]([]) == []
    assert "longer" not in pictures(names, usual)  # and no word that they were not run
    others = [
        made_up("psc", 25, 0.6, recipe="resnet32", epochs=250),
        made_up("psc", 25, 0.6, precision="bf16-mixed", epochs=60),
        made_up("psc", 25, 0.6, epochs=10),
        made_up("psc", 25, 0.6, epochs=60, seed=1),
        made_up("psc", 25, 0.6, epochs=60, table="losses"),
    ]
    assert PLOTS["curves_longer"][1]([*usual, *others]) == []
    more = [made_up(method, 10, 0.6, epochs=60) for method in ("dynamic", "psc")]
    more.append(made_up("dynamic", 10, 0.5, epochs=40))
    (panel,) = PLOTS["curves_longer"][1]([*usual, *others, *more])
    assert panel.title == "cnn, 60 epochs, D = 10"
    assert [(line.name, line.y[-1]) for line in panel.lines] == [("dynamic", 60), ("psc (learned unit rows)", 60)]
    assert PLOTS["curves_d10_d25"][1]([*usual, *more]) == PLOTS["curves_d10_d25"][1](usual)
    assert pictures(names, [*usual, *more]).endswith("(pictures/curves_longer.png)")


def test_learning_curves_have_a_panel_for_each_dimension_that_was_run() -> None:
    records = [made_up(method, 10, 0.4) for method in ("psc", "hpn")]
    (panel,) = PLOTS["curves_d10_d25"][1](records)
    assert panel.title.endswith("D = 10") and {line.name for line in panel.lines} == {"psc (learned unit rows)", "hpn"}
    assert [line.y for line in panel.lines] == [[pytest.approx(value) for value in (10, 20, 30, 40)]] * 2
    assert PLOTS["curves_d50_d100"][1](records) == []
    shown = pictures(("curves_d10_d25", "curves_d50_d100"), records).split("\n\n")
    assert shown[0].endswith("(pictures/curves_d10_d25.png)")
    assert shown[1] == "CIFAR-100: validation accuracy by epoch, D = 50 and 100: not run."
    assert paper.moved([]) == "not run" and paper_plots.figure4a([]) == []


def test_figures_of_the_prototypes() -> None:
    search = [{"subset": n, "steps": steps, "uniformity": -float(n)} for n in (10, 25) for steps in (1, 100)]
    search.append({"method": "lbfgs", "uniformity": -30.0})
    assert rows(paper_prototypes.figure3a(search)) == [["10", *["-10.00000"] * 2], ["25", *["-25.00000"] * 2]]
    (panel,) = PROTOTYPES["figure3a"](search)
    assert [line.reference for line in panel.lines] == [False, False, True] and panel.lines[2].x == [1, 100]
    costs = [{"classes": n, "dim": 4, "method": m, "seconds": n / 1e3} for n in (5, 50) for m in ("dense", "other_way")]
    assert rows(paper_prototypes.figure3c(costs)) == [["5", "5 ms", "5 ms"], ["50", "50 ms", "50 ms"]]
    assert [line.name for line in PROTOTYPES["figure3c"](costs)[0].lines] == ["dense", "other way"]
    row = {"classes": 100, "dim": 50, "max_cosine": "0.01", "min_cosine": -1.0}
    assert rows(
        paper_prototypes.table7([{**row, "what": "paper"}, {**row, "what": "theirs", "missing": "no file"}])
    ) == [["(100, 50)", "paper", "0.01", "-1.0000", ""]]
    sets = {"part": "sets", "what": "u", "mean_angle": 90.0, "distance": 0.5, "uniformity": -2.0}
    passes = [{"part": "passes", "what": "a", "passes": n, "uniformity": -1.0} for n in (1, 10)]
    text = paper_prototypes.picture("figure2")([sets, *passes])
    assert text.startswith("![L_uni") and rows(text) == [["u", "90.00", "0.5000", "-2.0000"]]
    assert PROTOTYPES["figure2"]([sets, *passes])[0].lines[0].x == [1, 10]


PROTOTYPES = {name: plot for name, (_, plot) in paper_prototypes.PLOTS.items()}
