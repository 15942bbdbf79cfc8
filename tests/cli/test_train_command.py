"""Options and configuration files: the same text is the same value, and what is wrong is named in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fastproto.cli import train
from fastproto.cli.train_command import parse_train
from fastproto.training import TrainConfig
from fastproto.training.config_files import config_text, read_config, run_of
from fastproto.training.parse_settings import OPTIONS, flatten, from_text, unflatten

NAMES = ("1e-3", "1.5e3", "12", "on", "null", "~", "0x1f", "010", "1_000", "1:30", "2024-01-01", ".inf", "true", "=")
NAMES += ("<<", "😀", "it's", '"q"', " lead", "trail ", "a: b", "#x", "- x", "[1]", "{a}", "@x", "!x", "&x", "*x", "|")
NAMES += ("a\nb", "a\tb", "a\x85b", "a\u2028b", "\udcff", "é", "\x7f", "x" * 300)


@pytest.mark.parametrize("name", NAMES)
def test_any_text_comes_back_from_a_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("name", "out", "data.root", "data.fonts", "head.prototypes", "head.words", "head.trained", "model.name")
    texts += ("model.weights",)
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
        ("loggers", "[csv, tensorboard]", ["csv", "tensorboard"]),
        ("loggers", "wandb,csv", ["wandb", "csv"]),
        ("loggers", "['csv', 'wandb']", ["csv", "wandb"]),
        ("optim.milestones", "100, 200", [100.0, 200.0]),
        ("data.num_classes", "null", None),
        ("data.root", "null", None),
        ("data.augment", "off", "none"),
        ("data.augment", "True", "auto"),
        ("name", "12", "12"),
        ("precision", "bf16-true", "bf16-true"),
    ):
        file.write_text(f"{key}: {text}\noptim.epochs: 250\n")
        for config in (parse_train([f"--{key}", text, "--optim.epochs", "250"]), parse_train(["--config", str(file)])):
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
        (["--optim.momentum", "1"], "optim.momentum is 1.0; expected 0 <= momentum < 1"),
        (["--optim", "sgd", "--optim.momentum", "0"], "optim.nesterov is True; expected false where optim.momentum"),
        (["--optim.milestones", "[0.5, 30]"], "expected parts between 0 and 1, or epochs below optim.epochs 30"),
        (["--optim.mixup", "1e-9"], "optim.mixup is 1e-09; expected 0 for none, or at least 0.001"),
        (["--optim.mixup", "-1"], "optim.mixup is -1.0; expected at least 0"),
        (["--optim.class_weights", "batch"], "expected one of none, in_batch, inverse_frequency"),
        (["--optim.weights_from_epoch", "3"], "optim.weights_from_epoch is 3; expected 0 where optim.class_weights is"),
        (["--loggers", "csv,tensorbord"], "expected some of csv, tensorboard, wandb"),
        (["--compile_mode", "fast"], "expected one of default, reduce-overhead"),
        (["--recipe", "cifar100-d11"], "unknown recipe 'cifar100-d11'; did you mean cifar100-d1"),
        (["--recipe", "zzz"], "unknown recipe 'zzz'; --recipe list prints them all"),
        (["--recip", "list"], "unknown option --recip; did you mean --recipe?"),
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
        (b"head:\n  dim: 3\n  dim: 4\n", "line 3: head.dim is repeated, first in line 2"),
        (b"head: {dim: 3}\nseed: 1\nhead: {dim: 3}\n", "line 3: head is repeated, first in line 1"),
        (b"head: {dim: 3}\nhead.dim: 4\n", "line 2: head.dim is repeated, first in line 1"),
        (b"head:\n  dimm: 8\n", "line 2: unknown configuration key 'head.dimm'; did you mean head.dim?"),
        (b"lr: 8\n", "did you mean optim.lr?"),
        (b"head: {dim: five}", "head.dim is 'five'; expected a whole number"),
        (b"head: {scale: length}", "head.scale is 'length'; expected a number or norm"),
        (b"head: {scale: null}", "head.scale is null; expected a number or norm"),
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
        (b"optim: {milestones: [[&a [0.1, 0.2], *a], 0.5]}", "optim.milestones has an item that is not a number"),
        (b"optim: {milestones: [0.5, null]}", "optim.milestones is null; expected numbers"),
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
        ({"head.scale": "length"}, "head.scale is 'length'; expected a number or norm"),
        ({"head.scale": None}, "head.scale is None; expected a number or norm"),
        ({"head.power": "half"}, "head.power is 'half'; expected a number"),
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


@pytest.mark.parametrize("scale", ["norm", 8.0])
def test_a_scale_is_a_number_or_norm_in_files_and_options(scale: Any, tmp_path: Path) -> None:
    config = TrainConfig()
    config.head.loss, config.head.scale = "softmax", scale
    config.check()
    (tmp_path / "run.yaml").write_text(config_text(config))
    assert read_config(tmp_path / "run.yaml")["head.scale"] == scale
    assert from_text(OPTIONS["head.scale"], str(scale)) == scale


def test_every_setting_has_help() -> None:
    assert all(
        option.help and option.kind in ("str", "int", "float", "bool", "floats", "texts") for option in OPTIONS.values()
    )


def test_the_run_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    assert run_of("../..") == Path("../..")
    assert run_of("runs/x/checkpoints/last.ckpt") == Path("runs/x")
    assert run_of("last.ckpt") == tmp_path / "run"
