"""Tables, plots and pages made of rows: what they say, and that a whole run fits on its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pages import tables
from benchmarks.pages.fits import exponent, ratio_of
from benchmarks.pages.formats import duration, markdown, mebibytes, percent, ratio
from benchmarks.pages.page import complete_page, html_page
from benchmarks.pages.pictures import digest, draw, drawn_from
from benchmarks.pages.plots import PLOTS
from benchmarks.pages.results import read
from benchmarks.pages.searches import search_table
from benchmarks.pages.summary import short_table
from benchmarks.pages.threads import thread_table
from benchmarks.pages.training import training_tables
from lib.report.benchmarks import PAGES, head

from .results_file import contents, row, whole

SMALL, LARGE = {"C": 1_000, "D": 512, "B": 8}, {"C": 100_000, "D": 512, "B": 8}


def test_figures_are_written_alike() -> None:
    assert [ratio(x) for x in (None, 0.012, 1.234, 9.996, 12.4)] == ["not measured", "0.012×", "1.23×", "10.00×", "12×"]
    assert [ratio(2.0, 0.1234), ratio(16.04, 0.31), ratio(78.0, 4.0)] == ["2.00 ± 0.12×", "16.0 ± 0.3×", "78 ± 4×"]
    times = [duration(x) for x in (None, 1.2e-5, 0.00123, 0.9994, 0.9996, 12.34)]
    assert times == ["not measured", "12 µs", "1.23 ms", "999 ms", "1 s", "12.3 s"]
    assert [percent(x) for x in (None, 0.004, 0.5, 1.3)] == ["not measured", "0.4 %", "50 %", "130 %"]
    assert [mebibytes(x) for x in (None, 0.2, 1234.0)] == ["not measured", "< 1 MiB", "1,234 MiB"]


def test_ratios_are_those_of_equal_rounds() -> None:
    assert ratio_of([[2.0, 4.0, 8.0]], [[1.0, 2.0, 4.0]]) == (2.0, 0.0)
    assert ratio_of([[2.0, 3.0, 4.0]], [[1.0, 1.0, 1.0]]) == (3.0, 1.0)
    assert ratio_of([[4.0]], [[1.0, 2.0, 3.0]]) == (2.0, None)
    visits = [[9.0] + [3.0, 4.0, 5.0] * 2 + [0.1]], [[1.0] * 8]
    assert ratio_of(*visits) == (4.0, 1.0), "of eight rounds the lowest and the highest are left out"


def test_ratios_compare_rounds_of_the_same_visit() -> None:
    """The machine was half as fast at the second visit, which the peer's long calls were no part of."""
    ours = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]]
    assert ratio_of([[3.0, 3.0, 3.0]], ours) == (3.0, 0.0)
    assert ratio_of([[3.0, 3.0, 3.0], [], [3.0]], [*ours, [1.5]]) == (3.0, 0.5)


def test_exponents_have_errors() -> None:
    assert exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-6))
    slope, error = exponent([1.0, 2.0, 4.0], [1.0, 2.0, 1.0])
    assert slope == pytest.approx(0.0) and error == pytest.approx((2 / 3) ** 0.5 / 2**0.5)


def test_two_points_are_no_fit() -> None:
    rows = [row("assign", {"C": c, "D": 3}, "fastproto", [1e-6 * c**2]) for c in (10, 20, 40)]
    assert tables.exponent_line(read(contents(rows)), "assign") == "fastproto C^(2.00 ± 0.00) from 10 to 40"
    assert tables.exponent_line(read(contents(rows[:2])), "assign") == "not measured"


def test_a_peer_is_beside_ours_and_what_is_missing_is_said() -> None:
    rows = [row("head_step", SMALL, "fastproto", [1.0, 1.0, 1.0]), row("head_step", SMALL, "softmax", [2.0, 2.0, 2.0])]
    absent = {"op": "head_step", "size": LARGE, "provider": "Liger", "threads": 1, "reason": "liger is not installed"}
    found = read(contents([*rows, row("head_step", LARGE, "fastproto", [3.0])], [absent]))
    lines = tables.op_table(found, "head_step").splitlines()
    assert lines[2] == "| C = 1,000, D = 512, B = 8 | 1 s | 2 s (2.00\xa0±\xa00.00×) |"
    assert lines[3] == "| C = 100,000, D = 512, B = 8 | 3 s | not measured |"
    assert tables.absent_by_reason(found) == "- liger is not installed: Liger of head_step"
    assert "| loss, gradient, class means: 1,000 classes, B = 8, D = 512 | 1 s | 2 s, softmax |" in short_table(found)
    assert tables.op_table(found, "assign") == thread_table(found) == search_table(found) == "not measured"


def test_rows_of_the_first_file_count() -> None:
    first = contents([row("assign", SMALL, "fastproto", [1.0])])
    absent = {"op": "assign", "size": SMALL, "provider": "fastproto", "threads": 1, "reason": "none"}
    second = contents([row("assign", SMALL, "fastproto", [5.0]), row("assign", LARGE, "fastproto", [7.0])], [absent])
    found = read(first, second)
    assert [each.median for each in found.rows] == [1.0, 7.0] and found.absent == []


def test_threads_that_gain_little_have_their_reason() -> None:
    size = {"C": 9, "D": 3}
    rows = [row("assign", size, "fastproto", [2.0] * 3, serial_part="the solver")]
    text = thread_table(read(contents([*rows, row("assign", size, "fastproto", [1.6] * 3, 2)])))
    assert text.endswith("| 2 s | 1.6 s | 1.25\xa0±\xa00.00× | 62 % | the solver |")
    text = thread_table(read(contents([*rows, row("assign", size, "fastproto", [1.0] * 3, 2)])))
    assert text.endswith("| 2.00\xa0±\xa00.00× | 100 % |  |")


def test_a_limit_that_gains_as_little_is_the_reason() -> None:
    size, shares = {"C": 9, "D": 3}, {"share_of_product": 0.4, "share_of_copy": 0.1, "precision": "float32"}
    limits = [row("ceilings", {"n": 1}, "product, float32", [s] * 3, n) for s, n in ((1.3, 1), (1.0, 2))]
    ours = [row("assign", size, "fastproto", [2.0] * 3, serial_part="the solver", **shares)]
    text = thread_table(read(contents([*limits, *ours, row("assign", size, "fastproto", [1.6] * 3, 2)])))
    assert text.splitlines()[2].startswith("| ceilings, product, float32 | 1.3 s | 1 s |")
    assert text.endswith("| the limit itself (product, float32) gains 1.30\xa0±\xa00.00× |")
    text = thread_table(read(contents([*limits, *ours, row("assign", size, "fastproto", [1.9] * 3, 2)])))
    assert text.endswith("| the solver |")


def test_threads_that_gain_nothing_are_said_to() -> None:
    size = {"C": 9, "D": 3}

    def why(all_: list[float]) -> str:
        rows = [row("assign", size, "fastproto", [2.0] * len(all_), serial_part="the solver")]
        text = thread_table(read(contents([*rows, row("assign", size, "fastproto", all_, 2)])))
        return text.splitlines()[-1].rpartition(" | ")[2].removesuffix(" |")

    assert why([2.5] * 10) == "slower with 2 threads; the solver"
    assert why([2.5, 1.6] * 6) == "no difference seen; the solver"
    assert why([1.9] * 11 + [9.0]) == "the solver", "one round that was disturbed hides no gain"
    assert why([2.5] * 7) == "the solver", "so few rounds show nothing"


def test_every_size_has_its_threads_where_asked_for() -> None:
    rows = [row("assign", {"C": c}, "fastproto", [c / n], n) for c in (3, 9) for n in (1, 2)]
    found = read(contents(rows))
    assert [thread_table(found, every).count("\n| assign") for every in (False, True)] == [1, 2]
    assert "C = 9" in thread_table(found)


def test_a_step_and_an_epoch_have_parts() -> None:
    size = {"data": "digits", "C": 10}
    seconds = {"backbone": 2.0, "fastproto, head": 1.0, "PSC, head": 2.0, "fastproto, assignment": 20.0}
    rows = [row("training_step", size, name, [each]) for name, each in seconds.items()]
    rows += [row("training_step", size, "data", [1.0], batches_per_epoch=20)]
    rows += [row("training_epoch", size, "fastproto", [99.0])]
    step, epoch = training_tables(read(contents(rows))).replace("\xa0", " ").split("\n\n")
    assert step.splitlines()[2:] == [
        "| digits, C = 10 | fastproto | 1 s (25 %) | 2 s (50 %) | 1 s (25 %) | not measured |",
        "| digits, C = 10 | PSC | 1 s (20 %) | 2 s (40 %) | 2 s (40 %) | not measured |",
    ]
    assert epoch.splitlines()[2:] == [
        "| digits, C = 10 | fastproto | 20 | 20 s (20 %) | 40 s (40 %) | 20 s (20 %) | 20 s (20 %) | 100 s | 99 s |",
        "| digits, C = 10 | PSC | 20 | 20 s (20 %) | 40 s (40 %) | 40 s (40 %) | none | 100 s | not measured |",
    ]
    assert training_tables(read(contents(rows[1:]))) == "not measured"


def test_unchanged_renewals_have_a_gain_of_their_own() -> None:
    size = {"C": 9, "D": 3, "means": "drifting"}
    ours = row("renewals", size, "fastproto", [2.0, 1.0, 1.0], moved=[None, 0.5, 0.0])
    text = tables.renewal_table(read(contents([ours, row("renewals", size, "lapjv", [4.0, 4.0, 6.0])])))
    assert text.endswith("| C = 9, D = 3, drifting | 3 | 1 | 4 s | lapjv 3.50×, 6.00× |")


def test_shares_name_their_product() -> None:
    limits = [row("ceilings", {"n": 1}, f"product, {name}", [1.0], flops=4e9) for name in ("float32", "int8")]
    shares = {"share_of_product": 0.5, "share_of_copy": 1.6}
    found = read(
        contents(
            [
                *limits,
                row("head_step", SMALL, "fastproto", [1.0], precision="int8", **shares),
                row("assign", SMALL, "fastproto", [1.0], precision="float32", **shares),
            ]
        )
    )
    lines = tables.every_row(found).splitlines()
    assert lines[-2].endswith("| 50 % of int8 | 160 % |") and lines[-1].endswith("| 50 % | 160 % |")
    said = "product, float32, one thread: 4 GFLOP/s; product, int8, one thread: 4 GOP/s"
    assert tables.ceiling_line(found) == said
    assert "a share of a copy may be above 100 %" in complete_page(found, {})


def test_foreign_text_stays_in_its_cell() -> None:
    assert markdown(["a|b"], [["<b>"], ["1 < 2"], ["</td>"]]).splitlines() == [
        r"| a\|b |",
        "| --- |",
        "| &lt;b> |",
        "| 1 < 2 |",
        "| &lt;/td> |",
    ]
    reason = "it failed: TypeError int | None <module>"
    absent = {"op": "assign", "size": SMALL, "provider": "peer", "threads": 1, "reason": reason}
    found = read(contents([], [absent]))
    shown = r"it failed: TypeError int \| None &lt;module>"
    assert tables.absent_by_reason(found) == f"- {shown}: peer of assign"
    assert tables.absent_table(found).endswith(f"| peer | {shown} |")
    markdown_module = pytest.importorskip("markdown")
    html = markdown_module.markdown(tables.absent_table(found), extensions=["tables"])
    assert html.count("<td>") == 4 and "int | None &lt;module&gt;</td>" in html


def test_the_page_names_the_files_that_it_is_made_from() -> None:
    def named(*scales: str) -> str:
        each = [contents([row("assign", SMALL, "fastproto", [1.0])]) for _ in scales]
        made = [
            one | {"fastproto": one["fastproto"] | {"scale": scale}} for one, scale in zip(each, scales, strict=True)
        ]
        return head(*made).partition("## Run them yourself")[2]

    alone, both = named("small"), named("small", "full")
    assert "from `benchmarks/results/small.json`. Elsewhere" in alone and "full.json" not in alone
    assert "from `benchmarks/results/small.json` and `benchmarks/results/full.json`. Elsewhere" in both
    for text, scales in ((alone, ["small"]), (both, ["small", "full"])):
        for scale in scales:
            file = f"benchmarks/results/{scale}.json"
            assert f"\npytest benchmarks --scale {scale} --cifar100 DIR --benchmark-json {file}\n" in text


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_a_whole_run_fits_on_its_pages(scale: str) -> None:
    data = whole(scale)  # type: ignore[arg-type]  # one of the scales
    found = read(data)
    assert len(found.rows) >= 30 and len({(each.op, str(each.size)) for each in found.rows}) >= 6
    texts = [write(data) for write in PAGES.values()]
    assert [text.count("\n") <= 120 for text in texts] == [True] * 3 and "{" not in "".join(texts)
    assert all(f"pictures/{name}.png" in "".join(texts) for name in PLOTS if name != "prototypes")
    for name, (_, plot) in PLOTS.items():
        for panel in plot(found):
            assert panel.lines and all(len(line.x) == len(line.y) > 0 for line in panel.lines), name


@pytest.mark.parametrize("name", ["memory", "roofline"])  # with few names in each panel; with several limits
def test_tall_pictures_are_drawn(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    panels = PLOTS[name][1](read(whole("small")))
    draw(panels, tmp_path / "drawn.png")
    assert drawn_from(tmp_path / "drawn.png") == digest(panels)


def test_the_complete_page_has_every_row_and_its_html_holds_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("markdown")
    found = read(whole("smoke"))
    (tmp_path / "roofline.png").write_bytes(b"png")
    text = complete_page(found, {"roofline": "roofline.png"})
    every = text.partition("## Every row")[2].partition("## Not measured")[0]
    assert every.count("\n| ") == len(found.rows) + 2
    html = html_page(text, tmp_path)
    assert (
        html.count("<table>") > 10 and 'src="data:image/png;base64,cG5n"' in html and 'src="roofline.png"' not in html
    )
