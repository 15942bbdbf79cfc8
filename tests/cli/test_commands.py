"""The three commands as a user types them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastproto.cli import predict, train
from fastproto.cli.train_command import parse_train

QUICK = ["--model", "mlp", "--optim.epochs", "1", "--progress", "false", "--accelerator", "cpu"]


def test_train_resume_and_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(QUICK) == 0
    assert "run folder          runs/digits" in capsys.readouterr().out
    assert train(["--resume", "runs/digits", "--optim.epochs", "2"]) == 0
    assert "run folder          runs/digits\n" in capsys.readouterr().out

    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(6):
        image = Image.fromarray((digits.images[index] * 255 / 16).round().astype("uint8"))
        image.save(tmp_path / f"{index}.png")
    files = [str(tmp_path / f"{index}.png") for index in range(6)]
    assert predict(["runs/digits", *files, "-k", "2"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == files
    assert all(len(line) == 5 and float(line[2]) >= float(line[4]) for line in lines)
    right = sum(line[1] == str(digits.target[index]) for index, line in enumerate(lines))
    assert right >= 4  # two epochs of an MLP

    broken = tmp_path / "broken.png"
    broken.write_bytes((tmp_path / "0.png").read_bytes()[:40])
    for arguments, message in (
        (["runs/digits", str(broken)], "not a readable image"),
        (["runs/digits", "nothing.png"], "no image nothing.png"),
        (["runs/digits", files[0], "-k", "11"], "1..10"),
        (["runs/none", files[0]], "no run folder or checkpoint"),
        (["runs/digits", files[0], "--device", "cuda:99"], "--device is cuda:99"),
        (["runs/digits", files[0], "--device", "foo"], "--device is foo"),
    ):
        assert predict(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    folder = tmp_path / "folder"
    folder.mkdir()
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    odd.write_bytes(Path(files[1]).read_bytes())
    arguments = [str(broken), files[0], "nothing.png", str(folder), str(odd), files[0]]
    assert predict(["runs/digits", *arguments]) == 2
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == [
        files[0],
        str(tmp_path / "caf\\udce9.png"),
        files[0],
    ]
    named = zip(("broken.png", "nothing.png", "folder"), printed.err.splitlines(), strict=True)
    assert all(words in line for words, line in named)


def test_configuration_files_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  name: glyphs\n  num_classes: 30\nhead:\n  dim: 8\n")
    config = parse_train(
        ["--config", str(file), "--head.dim", "9", "--num-nodes", "2", "--model=resnet20", "--seed", "4"]
    )
    assert (config.data.name, config.data.num_classes, config.head.dim) == ("glyphs", 30, 9)
    assert (config.num_nodes, config.model.name, config.seed) == (2, "resnet20", 4)


def test_print_config_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_train(["--data", "glyphs", "--print_config"])
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse_train(["--config", str(file)]) == parse_train(["--data", "glyphs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lrr", "1"], "unknown option --optim.lrr; did you mean --optim.lr?"),
        (["--optim.lr", "fast"], "optim.lr"),
        (["--head.momentum", "1.5"], "head.momentum is 1.5; expected 0 <= momentum < 1"),
        (["--data", "mnist"], "unknown data set 'mnist'"),
        (["--seed", "-1"], "seed is -1; expected 0 <= seed < 2^32"),
        (["--out", "/dev/null/run"], "/dev/null/run"),
        (["--accelerator", "gpu", "--devices", "99"], "99 devices and this machine has"),
        (["--resume", "nowhere"], "no run to resume at nowhere"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_errors_are_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train([*arguments, "--progress", "false"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_an_unknown_key_in_a_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("head:\n  dimension: 8\n")
    assert train(["--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert "dimension" in error and error.count("\n") == 1
