"""fastproto-prototypes: make, measure and draw prototypes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.device_option import check_device
from fastproto.cli.parser import Parser
from fastproto.cli.run_options import check_output

if TYPE_CHECKING:
    from fastproto.prototypes import Prototypes

Given = dict[str, Any]  # the options that were given, by name, with parsed values
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
COMMON = {"t", "out", "picture"}
OF_FILES = {"measure": {"measure"}, "words": {"words", "names"}}  # options of each mode, beside COMMON
OF_SGD = {"form", "subset_size", "lr", "iterations"}


def prototypes(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-prototypes."""
    signals = (signal.SIGTERM,)  # Ctrl-C is left to the search, which then returns the best it has found
    return run_command(lambda given: _prototypes(parse_prototypes(given)), args, signals)


def parse_prototypes(args: list[str]) -> Given:
    """Parse the command-line arguments into the given options, by name.

    Raises:
        ValueError: an unknown option or value, a missing option, or one that would go unused, in one sentence.
        SystemExit: after --help or --version.
    """
    given: Given = vars(_parser().parse_args(args))
    _check_used(given)
    return given


def _parser() -> Parser:
    """Defaults are suppressed: only an option that was given can be reported as unused."""
    parser = Parser(
        prog="fastproto-prototypes",
        description="Make, measure and draw prototypes: unit vectors spread over the sphere.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--num-classes", type=int, help="how many prototypes")
    parser.add_argument("--dim", type=int, help="dimension of the space")
    parser.add_argument("--out", type=Path, help="file to write: .safetensors, .npz, .pth (authors') or .npy (HPN's)")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure this file instead of making prototypes")
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="word vectors (text or .npz) as prototypes: see --names"
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="class names for --words, one a line")
    parser.add_argument(
        "--objective", choices=("uniform", "max_cosine"), help="minimise L_uni or the largest cosine (default uniform)"
    )
    parser.add_argument(
        "--method", choices=("auto", "lbfgs", "binary_code", "sgd"), help="optimisation method (default auto)"
    )
    parser.add_argument(
        "--effort", choices=("normal", "best"), help="normal stops about 1 %% before the end (default normal)"
    )
    parser.add_argument("--t", type=float, help="sharpness of the Gaussian potential (default 2)")
    parser.add_argument("--seed", type=int, help="seed of the random starts (default 0)")
    parser.add_argument("--max-passes", type=int, help="largest number of passes over all pairs")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS")
    parser.add_argument("--form", choices=("eq5", "within_batch"), help="loss of --method sgd (default eq5)")
    parser.add_argument("--subset-size", type=int, metavar="ROWS", help="of --method sgd: rows updated per step")
    parser.add_argument("--lr", type=float, help="learning rate of --method sgd (default 0.1)")
    parser.add_argument("--iterations", type=int, help="steps of --method sgd (default 1000)")
    parser.add_argument("--device", help="cpu (default), or cuda on a GPU")
    parser.add_argument("--no-cache", action="store_false", dest="cache", help="neither read nor write the cache")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to draw (default: beside --out)")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    return parser


def _prototypes(given: Given) -> None:
    t, out = given.get("t", 2.0), given.get("out")
    from fastproto.prototypes import load_prototypes, load_word_vectors
    from fastproto.prototypes.files import SUFFIXES
    from fastproto.prototypes.words import read_names

    check_output("--out", out, SUFFIXES)
    picture = _picture(given)
    check_output("--picture", picture, PICTURES)
    if "measure" in given:
        found = load_prototypes(given["measure"], t=t)
    elif "words" in given:
        found = load_word_vectors(given["words"], read_names(given["names"]), t=t)
    else:
        found = _estimated(given)
    print(quality_table(found))
    if out is not None:
        found.save(out)
        print(f"written to          {out}")
    if picture is not None:
        from fastproto.plots import draw_prototypes

        count, dim = found.vectors.shape
        title = f"{count} prototypes in {dim} dimensions ({found.method})"
        draw_prototypes(found.vectors.cpu().numpy(), picture, title=title, bound=found.quality.max_cosine_bound)
        sphere = f" and {picture.with_stem(picture.stem + '-sphere')}" if dim == 3 else ""
        print(f"drawn in            {picture}{sphere}")


def _check_used(given: Given) -> None:
    """Raise ValueError for options that are missing, and for those that would have no effect."""
    mode = next((name for name in OF_FILES if name in given), None)
    if mode is None and not {"num_classes", "dim"} <= given.keys():
        raise ValueError("nothing to do; expected --num-classes C --dim D [--out FILE], --measure FILE or --words FILE")
    if mode is None:
        sgd = given.get("method") == "sgd"
        unused = {"names"} | ({"effort"} if sgd else OF_SGD)
        condition = "without --words" if "names" in given else "with --method sgd" if sgd else "without --method sgd"
        if sgd and given.get("objective") == "max_cosine":
            raise ValueError("--objective is max_cosine and --method sgd minimises L_uni; expected --method lbfgs")
    else:
        unused, condition = given.keys() - OF_FILES[mode] - COMMON, f"with --{mode}"
        if mode == "words" and not given.get("names", Path()).is_file():
            names = f"--names {given['names']}, which is no file" if "names" in given else "no --names"
            raise ValueError(f"--words is given with {names}; expected a text file with a class name in each line")
    wrong = sorted(unused & given.keys())
    if wrong:
        option = "--no-cache" if wrong[0] == "cache" else "--" + wrong[0].replace("_", "-")
        raise ValueError(f"{option} has no meaning {condition}; leave it out")


def _picture(given: Given) -> Path | None:
    """The picture to draw: ``--picture``, or a file beside ``--out`` if matplotlib is installed; None: no picture."""
    if "picture" in given:
        return Path(given["picture"])
    if "out" not in given or find_spec("matplotlib") is None:
        return None
    out: Path = given["out"]
    return out.with_suffix(".png")


def _estimated(given: Given) -> Prototypes:
    from fastproto.prototypes import estimate_prototypes

    settings = {name: value for name, value in given.items() if name not in ("num_classes", "dim", "out", "picture")}
    count, dim, seed = given["num_classes"], given["dim"], given.get("seed", 0)
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed}; expected 0 <= seed < 2^32")
    # Four float64 matrices: the vectors, their gradient and two of a step.
    if count > 0 and dim > 0 and 32 * count * dim > _memory():
        raise ValueError(
            f"--num-classes is {count} and --dim {dim}; such prototypes need {32 * count * dim / 2**30:.0f} GiB and "
            f"this machine has {_memory() / 2**30:.0f}: expected fewer"
        )
    check_device(given.get("device", "cpu"))
    at_a_terminal = sys.stderr is not None and sys.stderr.isatty()
    return estimate_prototypes(count, dim, progress=at_a_terminal or None, **settings)


def _memory() -> float:
    """Physical memory in bytes; infinite if unknown."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def quality_table(found: Prototypes) -> str:
    """The quality of prototypes, a line for each figure."""
    q = found.quality
    count, dim = found.vectors.shape
    rows = (
        ("prototypes", f"{count} in {dim} dimensions, {found.method}, {found.passes} passes, {found.seconds:.1f} s"),
        ("L_uni", f"{q.uniformity:.7f} at t = {q.t:g} (no set has less than {q.uniformity_bound:.7f})"),
        ("max cosine", f"{q.max_cosine:.6f} (no set has less than {q.max_cosine_bound:.6f})"),
        ("nearest, mean", f"{q.mean_max_cosine:.6f}"),
        ("min cosine", f"{q.min_cosine:.6f}"),
        ("mean angle", f"{q.mean_angle:.4f} degrees"),
    )
    return "\n".join(f"{name:<20}{value}" for name, value in rows)
