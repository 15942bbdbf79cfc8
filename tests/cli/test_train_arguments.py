"""Options and configuration files: the same text is the same value, and what is wrong is named in one sentence."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from fastproto.cli import predict, prototypes, train
from fastproto.cli.run_command import exit_code
from fastproto.cli.train_arguments import parse_train
from fastproto.support.stopping import stopping
from fastproto.training import TrainConfig
from fastproto.training.config_files import config_text, read_config, run_of
from fastproto.training.options import OPTIONS, flatten, unflatten

NAMES = ("1e-3", "1.5e3", "12", "on", "null", "~", "0x1f", "010", "1_000", "1:30", "2024-01-01", ".inf", "true", "=")
NAMES += ("<<", "😀", "it's", '"q"', " lead", "trail ", "a: b", "#x", "- x", "[1]", "{a}", "@x", "!x", "&x", "*x", "|")
NAMES += ("a\nb", "a\tb", "a\x85b", "a\u2028b", "\udcff", "é", "\x7f", "x" * 300)


@pytest.mark.parametrize("name", NAMES)
def test_any_text_comes_back_from_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("name", "out", "data.root", "data.fonts", "head.prototypes", "head.words", "head.trained", "model.name")
    flat = {key: option.default for key, option in OPTIONS.items()} | dict.fromkeys(texts, name)
    config = TrainConfig.from_dict(unflatten(flat))
    file = tmp_path / "config.yaml"
    file.write_text(config_text(config), encoding="utf-8")
    assert TrainConfig.from_dict(unflatten(read_config(file))) == config
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == config.to_dict()
    parsed = parse_train([f"--name={name}", f"--out={name}"])
    assert (parsed.name, parsed.out) == (name, name)
    with pytest.raises(SystemExit, match="0"):
        parse_train([f"--name={name}", f"--data.root={'x' + name}", "--optim.lr", "1e-05", "--print_config"])
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    again = parse_train(["--config", str(file)])
    assert (again.name, again.data.root, again.optim.lr) == (name, "x" + name, 1e-5)


def test_options_and_files_read_the_same_values(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for key, text, value in (
        ("optim.lr", "1e-3", 0.001),
        ("optim.lr", "1", 1.0),
        ("optim.milestones", "[0.1, 0.5]", [0.1, 0.5]),
        ("data.num_classes", "null", None),
        ("data.root", "null", None),
        ("data.augment", "off", False),
        ("data.augment", "True", True),
        ("name", "12", "12"),
        ("precision", "bf16-true", "bf16-true"),
    ):
        file.write_text(f"{key}: {text}\n")
        for config in (parse_train([f"--{key}", text]), parse_train(["--config", str(file)])):
            assert flatten(config.to_dict())[key] == value
    file.write_text("\ufeffoptim:\r\n  lr: 2e-3\r\nhead:\r\n", encoding="utf-8")  # as a Windows editor saves it
    assert parse_train(["--config", str(file), "--optim.lr", "0.5", "--optim.lr=0.25"]).optim.lr == 0.25
    assert parse_train(["--optim.lr", "0.5", "--config", str(file)]).optim.lr == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lr"], "--optim.lr has no value"),
        (["--optim.lr", "--seed", "3"], "--optim.lr has no value"),
        (["--resume"], "--resume has no value"),
        (["--config"], "--config has no value"),
        (["--optim.lr="], "optim.lr is ''; expected a number"),
        (["--lr", "1"], "unknown option --lr; did you mean --optim.lr?"),
        (["--lr=1"], "unknown option --lr; did you mean --optim.lr?"),
        (["-lr", "1"], "unknown option -lr; did you mean --optim.lr?"),
        (["--epochs", "3"], "did you mean --optim.epochs?"),
        (["--dim", "3"], "did you mean --head.dim?"),
        (["--batch-size", "3"], "did you mean --data.batch_size?"),
        (["--root", "x"], "did you mean --data.root?"),
        (["--head.lr", "3"], "did you mean --optim.lr?"),
        (["--optim.learning_rate", "3"], "expected one of --optim.name, --optim.lr,"),
        (["--zzz", "3"], "unknown option --zzz; see fastproto-train --help"),
        (["--devices", "0"], "devices is 0; expected at least 1"),
        (["--devices", "auto"], "devices is 'auto'; expected a whole number"),
        (["--seed", "-1"], "seed is -1"),
        (["--devices", "99999999"], "devices is 99999999; expected at most 65536"),
        (["--optim.lr", "1e39"], "optim.lr is 1e+39; expected at most 1e+15"),
        (["--optim.lr", "0"], "optim.lr is 0.0; expected a number > 0"),
        (["--data.image_size", "2147483647"], "data.image_size is 2147483647; expected at most 32768"),
        (["--data.workers", "-1"], "data.workers is -1; expected at least 0"),
        (["--seed", "1.0"], "seed is '1.0'; expected a whole number"),
        (["--optim.epochs", "9" * 30], "optim.epochs is 999"),
        (["--optim.epochs", "9" * 5000], "optim.epochs is '999"),
        (["--optim.lr", "-1e-3"], "optim.lr is -0.001"),
        (["--optim.lr", "-inf"], "optim.lr is -inf; expected a finite number"),
        (["--optim.lr", "nan"], "optim.lr is nan; expected a finite number"),
        (["--optim.lr", "−0.1"], "optim.lr is '−0.1'; expected a number"),
        (["—lr", "3"], "not the ASCII hyphen"),
        (["-–optim.lr", "3"], "not the ASCII hyphen"),
        (["digits"], "unknown argument 'digits'"),
        (["--", "--seed"], "unknown argument '--'"),
        ([""], "unknown argument ''"),
        (["--name", ""], "name is ''"),
        (["--progress", "maybe"], "progress is 'maybe'; expected true or false"),
        (["--config", "/"], "/ is a folder"),
        (["--resume", "/dev/null"], "no run to resume at /dev/null"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1 and len(error) < 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        ("name: é".encode("latin-1"), "is not UTF-8"),
        ("name: x".encode("utf-16"), "is not UTF-8"),
        (bytes(range(256)), "is not UTF-8"),
        (b"name: a\0b", "is not YAML"),
        (b"- a\n", "holds a list"),
        (b"hello", "holds the text 'hello'"),
        (b"head:\n\tdim: 3\n", "line 2: found character '\\t'"),
        (b"head:\n  dim: 3\n  dim: 4\n", "line 3: head.dim stands twice, first in line 2"),
        (b"head: {dim: 3}\nseed: 1\nhead: {dim: 3}\n", "line 3: head stands twice, first in line 1"),
        (b"head: {dim: 3}\nhead.dim: 4\n", "line 2: head.dim stands twice, first in line 1"),
        (b"head:\n  dimm: 8\n", "line 2: unknown configuration key 'head.dimm'; did you mean head.dim?"),
        (b"lr: 8\n", "did you mean optim.lr?"),
        (b"head: {dim: five}", "head.dim is 'five'; expected a whole number"),
        (b"head: {dim: [5]}", "head.dim is a list; expected a whole number"),
        (b"head: {dim: null}", "head.dim is null; expected a whole number"),
        (b"optim: {lr: .nan}", "optim.lr is '.nan'; expected a number"),
        (b"optim: 3", "optim is the text '3'; expected a group"),
        (b"name: !!python/object/apply:os.system ['true']", "name is a list; expected a text"),
        (b"name: !!python/name:os.system", "name has the tag"),
        (b"a: &a [x,x]\nb: &b [*a,*a]\nhead: *b\n", "line 1: unknown configuration key 'a'"),
        (b"head: &h {dim: *h}\n", "head.dim is a mapping"),
        (b"<<: {seed: 3}\n", "unknown configuration key '<<'"),
        (b"? [a]\n: 3\n", "a key is a list"),
        (b"name: 'x\n", "line 2: found unexpected end of stream"),
        (b"name: x\n---\nname: y\n", "line 2"),
        (b"[" * 20_000, "is nested too deeply"),
        (b"#" * (1 << 16) + b"\n", "is larger than"),
    ],
)
def test_wrong_files(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert train(["--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(file) in error and error.count("\n") == 1 and len(error) < 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.dim": 10.0}, "head.dim is 10.0; expected a whole number"),
        ({"head.dim": True}, "head.dim is True; expected a whole number"),
        ({"out": "a\0b"}, r"out is 'a\\x00b'; expected a text"),
        ({"optim.lr": "fast"}, "optim.lr is 'fast'; expected a number"),
        ({"optim.milestones": 0.5}, "optim.milestones is 0.5; expected numbers"),
        ({"model.name": None}, "model.name is None; expected a text"),
        ({"progress": 1}, "progress is 1; expected true or false"),
        ({"name": " "}, "name is ' '; expected a text"),
    ],
)
def test_types_are_checked_in_python_too(changes: dict[str, Any], message: str) -> None:
    flat = {key: option.default for key, option in OPTIONS.items()} | changes
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        TrainConfig.from_dict(unflatten(flat)).check()


def test_numbers_of_numpy_and_paths_are_written_as_plain_values() -> None:
    config = TrainConfig(seed=np.int64(3), out=Path("a/b"))  # type: ignore[arg-type]
    config.optim.lr, config.optim.milestones = np.float32(0.5), (0.25, np.float64(0.5))  # type: ignore[assignment]
    config.check()
    read = yaml.safe_load(config_text(config))
    assert (read["seed"], read["out"]) == (3, "a/b")
    assert (read["optim"]["lr"], read["optim"]["milestones"]) == (0.5, [0.25, 0.5])


def test_every_setting_has_help() -> None:
    assert all(option.help and option.kind in ("str", "int", "float", "bool", "floats") for option in OPTIONS.values())


def test_the_run_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    assert run_of("../..") == Path("../..")
    assert run_of("runs/x/checkpoints/last.ckpt") == Path("runs/x")
    assert run_of("last.ckpt") == tmp_path / "run"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyError("lost"), 1, "unexpected KeyError: 'lost'; set FASTPROTO_TRACEBACK=1"),
        (RuntimeError("two\nlines"), 1, "unexpected RuntimeError: two lines"),
        (TypeError("no"), 1, "unexpected TypeError"),
        (MemoryError(), 2, "not enough memory (MemoryError); use a smaller data.batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 2, "not enough memory"),
        (ValueError("x is 1; expected 2"), 2, "x is 1; expected 2"),
    ],
)
@pytest.mark.parametrize("traceback", [False, True])
def test_the_last_line_of_defence(
    error: Exception,
    code: int,
    message: str,
    traceback: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        raise error

    if traceback:
        monkeypatch.setenv("FASTPROTO_TRACEBACK", "1")
    else:
        monkeypatch.delenv("FASTPROTO_TRACEBACK", raising=False)
    assert exit_code(command) == code
    *before, last = capsys.readouterr().err.rstrip("\n").split("\n")
    assert last.startswith("error: ") and message in last
    assert ("Traceback (most recent call last):" in before) == traceback and bool(before) == traceback


def test_the_advice_is_of_this_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    monkeypatch.setattr(stopping, "folder", tmp_path)  # of a run before, in this process
    assert predict(["/none", "x.png"]) == 2
    assert "--resume" not in capsys.readouterr().err


class NoReader(io.StringIO):
    """A pipe whose other end is closed."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError


def test_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(9):
            Image.new("L", (8, 8), i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr(sys, "stderr", NoReader())
    # its note of what is not used cannot be written: the run has not been done, so it must not end with 0
    assert train(["--data", "image-folder", "--data.root", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(sys, "stdout", NoReader())
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0  # as with | head


PROTOTYPES = ["--num-classes", "5", "--dim", "3"]


def test_closed_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python starts where they are closed
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0
    assert predict(["/none", "x.png"]) == 2
    assert "/none" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(sys, "stderr", None)
    assert prototypes([*PROTOTYPES, "--no-cache"]) == 0
    assert capsys.readouterr().out.startswith("prototypes")
    assert predict(["/none", "x.png"]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-classes", "-3", "--dim", "3"], "at least 2"),
        (["--num-classes", "1e9", "--dim", "3"], "--num-classes is '1e9'; expected a whole number"),
        (["--num-classes", "10.0", "--dim", "3"], "--num-classes is '10.0'; expected a whole number"),
        (["--num-classes", "9" * 12, "--dim", "3"], "this machine has"),
        (["--num-classes", "5", "--dim", "0"], "at least 2"),
        (["--num-classes"], "--num-classes has no value"),
        (["--num_classes", "5"], "did you mean --num-classes?"),
        ([*PROTOTYPES, "--t", "nan"], "t is nan"),
        ([*PROTOTYPES, "--t", "two"], "--t is 'two'; expected a number"),
        ([*PROTOTYPES, "--t", "-1e-3"], "t is -0.001"),
        ([*PROTOTYPES, "--time-limit", "nan"], "time_limit is nan"),
        ([*PROTOTYPES, "--max-passes", "0"], "max_passes is 0"),
        ([*PROTOTYPES, "--seed", "-1"], "--seed is -1"),
        ([*PROTOTYPES, "--device", "xyz"], "--device is xyz"),
        ([*PROTOTYPES, "--device", "meta"], "--device is meta"),
        ([*PROTOTYPES, "--device", "cuda:99"], "--device is cuda:99"),
        ([*PROTOTYPES, "--device", "privateuseone"], "--device is privateuseone"),
        ([*PROTOTYPES, "--out", ""], "--out is .; expected a name that ends in"),
        ([*PROTOTYPES, "--lr", "0.1"], "--lr has no meaning without --method sgd"),
        ([*PROTOTYPES, "--names", "x"], "--names has no meaning without --words"),
        ([*PROTOTYPES, "--method", "sgd", "--objective", "max_cosine"], "sgd minimises L_uni"),
        ([*PROTOTYPES, "--out", "/dev/null/x.npz"], "nothing can be written in /dev/null"),
        ([*PROTOTYPES, "--picture", "x.xyz"], "ends in .png"),
        ([*PROTOTYPES, "junk"], "unknown argument 'junk'"),
        (["--measure", "x.npz", "--num-classes", "5"], "--num-classes has no meaning with --measure"),
        (["--measure", "x.npz", "--no-cache"], "--no-cache has no meaning with --measure"),
        (["--words", "x"], "with no --names"),
        (["--words", "x", "--names", "/none"], "with --names /none, which is no file"),
    ],
)
def test_wrong_arguments_of_prototypes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prototypes(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_wrong_files_of_prototypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    np.save(tmp_path / "integers.npy", np.eye(3, dtype=int))
    np.save(tmp_path / "complex.npy", np.eye(3, dtype=complex))
    torch.save({"w": torch.eye(3, dtype=torch.int64)}, tmp_path / "integers.pth")
    torch.save({"w": torch.empty(3, 3, device="meta")}, tmp_path / "meta.pth")
    (tmp_path / "folder.npz").mkdir()
    for name, message in (
        ("integers.npy", "int64"),
        ("complex.npy", "complex128"),
        ("integers.pth", "a tensor of torch.int64; expected a matrix of floating-point numbers"),
        ("meta.pth", "holds no matrix"),
        ("folder.npz", "no prototype file"),
    ):
        assert prototypes(["--measure", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error and str(tmp_path / name) in error and error.count("\n") == 1
    assert prototypes([*PROTOTYPES, "--out", str(tmp_path / "folder.npz")]) == 2
    assert "a folder; expected the name of a file" in capsys.readouterr().err
    vectors, names = tmp_path / "vectors.txt", tmp_path / "names.txt"
    vectors.write_text("kaffee 1 2 3\ncafé 3 2 1\n", encoding="utf-8")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        names.write_text("Kaffee\ncafé\n", encoding=encoding)
        assert prototypes(["--words", str(vectors), "--names", str(names)]) == 0
    capsys.readouterr()
    names.write_text("Kaffee\ncafé\n", encoding="latin-1")
    assert prototypes(["--words", str(vectors), "--names", str(names)]) == 2
    assert str(names) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: checkpoint, IMAGE"),
        (["run", "x.png", "-k", "two"], "-k is 'two'; expected a whole number"),
        (["run", "x.png", "--devise", "cpu"], "did you mean --device?"),
        (["run", "x.png", "--device"], "--device has no value"),
        (["run", "x.png", "--device", "meta"], "--device is meta, which is not there"),
    ],
)
def test_wrong_arguments_of_predict(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    code = "import sys; from fastproto.cli import train; sys.exit(train(['--name=é😀', '--print_config']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    (tmp_path / "run.yaml").write_bytes(done.stdout)
    assert b"\\xe9" in done.stdout
