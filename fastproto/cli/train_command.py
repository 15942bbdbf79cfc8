"""fastproto-train: a training run from the command line; every setting is an option.

Neither torch nor Lightning is imported before the configuration has been checked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.parser import Parser
from fastproto.compat.dl2pa.settings import read_dl2pa_config
from fastproto.support.spelling import nearest
from fastproto.training.config_files import config_of_run, config_text, read_config
from fastproto.training.parse_settings import GROUPS, NULL, OPTIONS, Option, from_text, unflatten
from fastproto.training.recipes import described_recipes, read_recipe
from fastproto.training.settings_and_flags import TrainConfig

LIST = "list"  # the name that stands for all recipes
_EPILOG = (
    f"--data NAME is short for --data.name NAME (so --model, --head, --optim); - and _ in a name are the same. "
    f"{NULL} unsets what a file has set. Options override files, later ones override earlier ones, and files override "
    "the recipe."
)


def train(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-train."""
    return run_command(_train, args)


def _train(args: list[str]) -> None:
    config, classes = _parse(args)
    from fastproto.training import fit

    try:
        result = fit(config, classes=classes)
    except BrokenPipeError as error:  # standard error takes notes and the progress bar: the run has not ended
        raise OSError("standard error was closed during the run; expected it to stay open until the end") from error
    from lightning.pytorch.utilities import rank_zero_only

    if getattr(rank_zero_only, "rank", 0) == 0:  # of all nodes; the trainer has set it
        print(f"validation accuracy {100 * result.validation_accuracy:.2f} % (the checkpoint was chosen on it)")
        print(f"test accuracy       {100 * result.test_accuracy:.2f} %, top-5 {100 * result.test_accuracy_top5:.2f} %")
        print(f"run folder          {result.folder}", flush=True)


def parse_train(args: list[str]) -> TrainConfig:
    """Build the configuration from command-line arguments.

    Precedence, lowest first: defaults, the configuration of a resumed run, the recipe, the file of ``--dl2pa_config``,
    the files of ``--config``, options.

    Raises:
        ValueError: an unknown option, key, value or recipe, in one sentence.
        FileNotFoundError: no such file or run.
        SystemExit: after --help, --version, --print_config or --recipe list.
    """
    return _parse(args)[0]


def _parse(args: list[str]) -> tuple[TrainConfig, int | None]:
    """The configuration, and how many classes the recipe is for unless the arguments say how many to use."""
    given = vars(_parser().parse_args(_normalise(args)))
    files, printed, name = given.pop("config", []), given.pop("print_config", False), given.pop("recipe", None)
    authors = given.pop("dl2pa_config", None)
    if name == LIST:
        print("\n".join(described_recipes()), flush=True)
        raise SystemExit(0)
    recipe = None if name is None else read_recipe(name)
    asked: dict[str, Any] = {} if recipe is None else recipe.settings
    if authors is not None:
        asked |= read_dl2pa_config(authors)
    for file in files:
        asked |= read_config(file)
    asked |= {key: from_text(OPTIONS[key], text) for key, text in given.items()}
    values = {key: option.default for key, option in OPTIONS.items()}
    if asked.get("resume") is not None:
        # The run may have been moved: out=None stands for the folder in which it was found.
        values |= config_of_run(asked["resume"]) | {"out": None}
    config = TrainConfig.from_dict(unflatten(values | asked))
    config.check()
    if printed:
        print(config_text(config), end="", flush=True)
        raise SystemExit(0)
    return config, None if recipe is None or config.data.num_classes is not None else recipe.classes


class _TrainParser(Parser):
    """A parser of options ``--group.name``."""

    def unknown(self, word: str) -> str:
        name = word.lstrip("-").partition("=")[0]
        group = name.partition(".")[0]
        if word.startswith("--") and group in GROUPS and "." in name and not nearest(name, OPTIONS):
            own = ", ".join(f"--{key}" for key in OPTIONS if key.startswith(f"{group}."))
            return f"unknown option --{name}; expected one of {own}"
        return super().unknown(word)

    def nearest(self, name: str) -> str | None:
        near = nearest(
            name.lstrip("-"), [*OPTIONS, "recipe", "config", "dl2pa_config", "print_config", "help", "version"]
        )
        return near and f"--{near}"


def _parser() -> Parser:
    parser = _TrainParser(
        prog="fastproto-train",
        usage="fastproto-train [--recipe NAME] [--dl2pa-config FILE] [--config FILE] [--resume RUN] [--KEY VALUE ...]",
        description="Train a hyperspherical classifier: fixed prototypes, with labels re-assigned to them.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    parser.add_argument("--recipe", metavar="NAME", help="settings of an experiment of the paper; list prints them all")
    parser.add_argument(
        "--config", action="append", metavar="FILE", default=[], help="YAML file with any of the settings below"
    )
    parser.add_argument("--dl2pa_config", metavar="FILE", help="YAML file of the code published with the paper")
    parser.add_argument("--print_config", action="store_true", help="print all settings as such a file, and exit")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for key, option in OPTIONS.items():
        target = groups.get(key.partition(".")[0], parser)
        target.add_argument(
            f"--{key}", dest=key, default=argparse.SUPPRESS, metavar=option.kind.upper(), help=_help(option)
        )
    return parser


def _help(option: Option) -> str:
    default = (
        NULL if option.default is None else str(option.default).lower() if option.kind == "bool" else option.default
    )
    return f"{option.help} (default: {default})".replace("%", "%%")


def _normalise(args: list[str]) -> list[str]:
    """``--num-nodes`` means ``--num_nodes``, ``--data glyphs`` means ``--data.name glyphs``."""
    normal = []
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
            name = name.replace("-", "_")
            arg = "--" + (f"{name}.name" if name in GROUPS else name) + equals + value
        normal.append(arg)
    return normal
