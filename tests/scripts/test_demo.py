"""The demo: its settings, what it prints of two tiny runs, and what it says of differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastproto.cli.train_command import parse_train
from lib import demo
from lib.demo import Pair, Renewals

RENEWALS = Renewals(moved=[0.9, 0.5, 0.25, 0.1, 0.1], gaps=[0.0, 1e-9, 0.0, 2e-9, 0.0], certified=5)


def pair(renewed: float, kept: float, renewals: Renewals = RENEWALS) -> Pair:
    return Pair(Path("runs/demo/seed-0/renewed"), renewed, kept, renewals)


def test_a_pair_of_tiny_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--data.num_classes", "8", "--head.dim", "2", "--optim.epochs", "3", "--model", "mlp"]
    assert demo.main([*tiny, "--accelerator", "cpu", "--out", str(tmp_path / "demo")], seeds=3, seconds=0) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = tmp_path / "demo" / "seed-0"
    assert sorted(run.name for run in runs.iterdir()) == ["never-renewed", "renewed"]
    assert [line.split(":")[0] for line in lines if line.startswith("seed ")] == ["seed 0"]  # no time for another
    assert any(line.startswith("optimality gap") and "2 of 2 renewals certified" in line for line in lines)
    shown = [Path(line.split()[0]) for line in lines if line.startswith(f"  {runs}")]
    assert [path.name for path in shown] == list(demo.PICTURES)[:3] and all(path.is_file() for path in shown)
    assert "assignment/changed" in (runs / "renewed" / "metrics.csv").read_text()
    assert "assignment/changed" not in (runs / "never-renewed" / "metrics.csv").read_text()
    first = {run: (runs / run / "config.yaml").read_text().splitlines() for run in ("renewed", "never-renewed")}
    differing = [one.split(":")[0].strip() for one, other in zip(*first.values(), strict=True) if one != other]
    assert sorted(differing) == ["out", "renewals_per_epoch"]
    assert demo.main(["--resume", str(runs / "renewed")]) == 2
    assert "use fastproto-train --resume RUN" in capsys.readouterr().err


def test_settings_are_the_demo_s_until_they_are_named() -> None:
    plain = demo.settings([])
    assert (plain.data.name, plain.data.num_classes, plain.progress) == ("glyphs", 64, False)
    assert plain.data.num_classes is not None and plain.data.num_classes > 2 * plain.head.dim  # labels can move
    assert demo.settings(["--head.dim", "7"]).head.dim == 7
    digits = demo.settings(["--data", "digits", "--optim.epochs", "2"])
    assert (digits.data.name, digits.data.num_classes, digits.optim.epochs) == ("digits", None, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--head", "linear"], "given head linear"),
        (["--head.renewals_per_epoch", "0"], "expected head prototype and more than 0"),
        (["--devices", "2"], "trains on one device"),
        (["--head.dimm", "3"], "--head.dimm"),
    ],
)
def test_arguments_that_leave_nothing_to_compare(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_a_difference_within_the_noise_is_called_so() -> None:
    assert demo.verdict([pair(0.8, 0.6), pair(0.82, 0.61)]) == ""
    assert "no difference is shown" in demo.verdict([pair(0.8, 0.7), pair(0.7, 0.78), pair(0.75, 0.75)])
    assert "one seed" in demo.verdict([pair(0.8, 0.6)])


def test_the_summary_holds_the_figures() -> None:
    text = demo.summary([pair(0.80, 0.60), pair(0.84, 0.61)])
    for part in ("over 2 seeds", "82.0 ± 2.8 %", "60.5 ± 0.7 %", "+21.5 ± 2.1 points"):
        assert part in text
    assert "90 % at the first renewal, 10 % at those of the last quarter" in text
    assert "at most 2.0e-09 of a sum of cosines; 10 of 10 renewals certified optimal" in text
    again, train = (line.split("#")[0].split() for line in text.splitlines()[-2:])
    assert again[0] == "./scripts/demo" and demo.settings(again[1:]).head.dim == 3
    assert train[0].endswith("fastproto-train") and parse_train(train[1:]).data.name == "image-folder"
    assert "no renewal was due" in demo.summary([pair(0.8, 0.8, Renewals([], [], 0))])


def test_a_free_folder(tmp_path: Path) -> None:
    assert demo.free_folder(tmp_path) == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert demo.free_folder(tmp_path) == tmp_path / "demo-2"
