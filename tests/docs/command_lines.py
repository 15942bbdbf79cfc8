"""Command lines of the pages, read by the parsers of the commands that they name; nothing of them is run."""

from __future__ import annotations

import os
import re
import shlex
from itertools import pairwise
from pathlib import Path

from torch.distributed.run import get_args_parser

from benchmarks.command import parse_bench
from fastproto.cli.embed_command import parse_embed
from fastproto.cli.export_command import parse_export
from fastproto.cli.predict_command import parse_predict
from fastproto.cli.prototypes_command import parse_prototypes
from fastproto.cli.test_command import parse_test
from fastproto.cli.train_command import parse_train

PARSERS = {
    "fastproto-predict": parse_predict,
    "fastproto-test": parse_test,
    "fastproto-embed": parse_embed,
    "fastproto-export": parse_export,
}
ELSEWHERE = ("cd", "git", "sbatch", "source")  # commands of others, of which nothing is checked


def command_lines(text: str) -> list[list[str]]:
    """The words of each command of a block: lines that end in a backslash go on, comments are left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_command(words: list[str], root: Path) -> None:
    """Raise for a command line that its command would refuse, or that nothing here knows."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of the environment
        words = words[1:]
    command, args = words[0].removeprefix("./"), words[1:]
    if command == "fastproto-train":
        _check_train(args)
    elif command in PARSERS:
        PARSERS[command](args)
    elif command == "fastproto-bench":
        parse_bench(args)
    elif command == "fastproto-prototypes":
        for option, name in pairwise(args):
            if option == "--names":
                Path(name).write_text("one\ntwo\n", encoding="utf-8")
        parse_prototypes(args)
    elif command.startswith("scripts/"):
        _check_script(command, args, root)
    elif command == "srun":
        check_command(args[next(i for i, word in enumerate(args) if not word.startswith("-")) :], root)
    elif command == "torchrun":
        launched = get_args_parser().parse_args([os.path.expandvars(word) for word in args])
        check_command([launched.training_script, *launched.training_script_args], root)
    elif command == "pip":
        _check_pip(args, root)
    elif command == "pytest":
        _check_files(args, root)
    elif command not in ELSEWHERE:
        raise ValueError(f"{command}: no parser is known for it; expected one of fastproto's commands or of scripts/")


def _check_train(args: list[str]) -> None:
    """Files that a page names need not exist: one with a setting stands for each."""
    for option, name in pairwise(args):
        if option in ("--config", "--dl2pa-config", "--resume"):
            config = Path(name) / "config.yaml" if option == "--resume" else Path(name)
            config.parent.mkdir(parents=True, exist_ok=True)
            setting = "dataset: cifar100" if option == "--dl2pa-config" else "seed: 0"
            config.write_text(f"{setting}\n", encoding="utf-8")
    try:
        parse_train(args)
    except SystemExit as stop:  # --help, --print_config
        if stop.code:
            raise ValueError(f"exit code {stop.code}") from stop


def _check_script(command: str, args: list[str], root: Path) -> None:
    """The script exists, and its options are words of its usage, unless it passes them on."""
    if not os.access(root / command, os.X_OK):
        raise ValueError(f"{command} is no command")
    if command == "scripts/demo":
        return _check_train(args)
    usage = (root / command).read_text(encoding="utf-8")
    for word in args:
        if word.startswith("--") and word.partition("=")[0] not in usage:
            raise ValueError(f"{command} has no option {word}")
    _check_files(args, root)


def _check_pip(args: list[str], root: Path) -> None:
    """``pip install`` of this repository, with extras that it has."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = ", project.partition("[project.optional-dependencies]")[2].partition("\n[")[0], re.M)
    for word in args[1:]:
        named = re.fullmatch(r"(?:\.|fastproto)(?:\[([\w,]+)\])?", word)
        if not word.startswith("-") and (named is None or not set((named[1] or "test").split(",")) <= {*extras}):
            raise ValueError(f"pip install {word}: no such extra")


def _check_files(args: list[str], root: Path) -> None:
    for word in args:
        path = word.partition("::")[0]
        if path.endswith(".py") and not (root / path).exists():
            raise ValueError(f"{path} does not exist")
