"""The commands fastproto-train, fastproto-prototypes and fastproto-predict; nothing heavy is imported before its use.

Exit codes: 0 done, 1 something unexpected, 2 bad input or a file that cannot be written, 130 interrupted (SIGINT,
Ctrl-C), 143 terminated (SIGTERM, what stopping a container sends). Where a signal ends one of several ranks, all end
with 128 + its number. An error is one sentence on standard error, after the traceback where FASTPROTO_TRACEBACK is set.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastproto
from fastproto.cli.train_arguments import parse_train
from fastproto.support.arguments import Parser
from fastproto.support.stopping import how_to_go_on, stopping

if TYPE_CHECKING:
    from fastproto.prototypes import Prototypes

ALL_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _run(command: Callable[[], None]) -> int:
    """Turn what users can cause into one sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
        _flush_stdout()
    except BrokenPipeError:
        _give_up_stdout()
    except SystemExit:
        raise
    except BaseException as error:  # any: the last line of defence, and what nobody foresaw says so and exits with 1
        stopping.fail(error)  # ends the process where other ranks wait for it
        code, text = _explain(error)
        with suppress(OSError, ValueError):  # standard error may be closed, or have no room either
            _say(text)
        try:
            _flush_stdout()
        except (OSError, ValueError):
            _give_up_stdout()
        return code
    return 0


def _run_alone(command: Callable[[], None], args: Sequence[str] | None, signals: Sequence[signal.Signals]) -> int:
    """The same where this process is the command: these signals end it at once, wherever it is, and its other ranks."""
    stopping.folder = None  # of a command that this process has run before
    if args is None:
        stopping.explain = _explain
        stopping.watch(signals)
    code = _run(command)
    if args is None:
        stopping.finish(wait=20)
    return code


def _given(args: Sequence[str] | None) -> list[str]:
    return list(sys.argv[1:] if args is None else args)


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and its text: a sentence, after the traceback where that was asked for."""
    if isinstance(error, KeyboardInterrupt):
        advice = how_to_go_on(str(error))
        return 130, "\ninterrupted" + (f"; {advice}" if advice else "")
    code, sentence = _sentence(error)
    asked = bool(os.environ.get("FASTPROTO_TRACEBACK"))
    return code, ("".join(traceback.format_exception(error)) if asked else "") + f"error: {sentence}"


def _sentence(error: BaseException) -> tuple[int, str]:
    message, kind = _message(error), type(error).__name__
    memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "allocate memory" in message
    if memory:
        return 2, f"not enough memory ({message or kind}); use a smaller data.batch_size, image size, C or D"
    advice = how_to_go_on(stopping.folder) if isinstance(error, OSError) else None
    if advice is not None:
        return 2, f"{message or kind}: {advice}"
    if isinstance(error, ValueError | ImportError | OSError) or kind == "MisconfigurationException":
        return 2, message or kind
    return 1, f"unexpected {kind}: {message}; set FASTPROTO_TRACEBACK=1 to see where, and please report it"


def _flush_stdout() -> None:
    if sys.stdout is not None:  # it is None where the process was started with it closed
        sys.stdout.flush()


def _say(text: str) -> None:
    """A line on standard error; ``print`` would take standard output where that is closed."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def _give_up_stdout() -> None:
    """Nobody reads it, or it has no room: what is left in its buffer must not fail again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _message(error: BaseException) -> str:
    """One line; of an error in a data loader's process the message alone, without torch's traceback around it."""
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


# --- fastproto-train -------------------------------------------------------------------------------------------------


def train(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-train."""
    return _run_alone(lambda: _train(_given(args)), args, ALL_SIGNALS)


def _train(args: list[str]) -> None:
    config = parse_train(args)
    from fastproto.training import fit

    try:
        result = fit(config)
    except BrokenPipeError as error:  # of standard error, where notes and the progress bar go: the run is not done
        raise OSError("nobody reads standard error any more; expected a reader until the run ends") from error
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0:
        print(f"validation accuracy {100 * result.validation_accuracy:.2f} % (the checkpoint was chosen on it)")
        print(f"test accuracy       {100 * result.test_accuracy:.2f} %, top-5 {100 * result.test_accuracy_top5:.2f} %")
        print(f"run folder          {result.folder}", flush=True)


# --- fastproto-prototypes --------------------------------------------------------------------------------------------


PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg")
COMMON = {"t", "out", "picture"}
OF_FILES = {"measure": {"measure"}, "words": {"words", "names"}}  # what is used beside what they have in common
OF_SGD = {"form", "subset_size", "lr", "iterations"}


def prototypes(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-prototypes."""
    signals = (signal.SIGTERM,)  # Ctrl-C ends a search with its best
    return _run_alone(lambda: _prototypes(vars(_prototypes_parser().parse_args(_given(args)))), args, signals)


def _prototypes_parser() -> Parser:
    """What is not given is absent: a setting that would go unused is an error, its default is none."""
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
    parser.add_argument("--objective", choices=("uniform", "max_cosine"), help="(default uniform)")
    parser.add_argument("--method", choices=("auto", "lbfgs", "binary_code", "sgd"), help="(default auto)")
    parser.add_argument("--t", type=float, help="sharpness of the Gaussian potential (default 2)")
    parser.add_argument("--seed", type=int, help="of the random starts (default 0)")
    parser.add_argument("--max-passes", type=int, help="sweeps over all pairs to spend at most")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS")
    parser.add_argument("--form", choices=("eq5", "within_batch"), help="of --method sgd (default eq5)")
    parser.add_argument("--subset-size", type=int, metavar="ROWS", help="of --method sgd: rows moved in a step")
    parser.add_argument("--lr", type=float, help="of --method sgd (default 0.1)")
    parser.add_argument("--iterations", type=int, help="of --method sgd (default 1000)")
    parser.add_argument("--device", help="cpu (default), or cuda on a GPU")
    parser.add_argument("--no-cache", action="store_false", dest="cache", help="neither read nor write the cache")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to draw (default: beside --out)")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    return parser


def _prototypes(given: dict[str, Any]) -> None:
    _check_used(given)
    t, out = given.get("t", 2.0), given.get("out")
    from fastproto.prototypes import load_prototypes, load_word_vectors
    from fastproto.prototypes.files import SUFFIXES
    from fastproto.prototypes.words import read_names

    _check_output("--out", out, SUFFIXES)
    picture = _picture(given)
    _check_output("--picture", picture, PICTURES)
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


def _check_used(given: dict[str, Any]) -> None:
    """Raise ValueError for options that are missing, and for those that would be passed over."""
    mode = next((name for name in OF_FILES if name in given), None)
    if mode is None and not {"num_classes", "dim"} <= given.keys():
        raise ValueError("nothing to do; expected --num-classes C --dim D [--out FILE], --measure FILE or --words FILE")
    if mode is None:
        sgd = given.get("method") == "sgd"
        unused = {"names"} | (set() if sgd else OF_SGD)
        condition = "without --words" if "names" in given else "without --method sgd"
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


def _picture(given: dict[str, Any]) -> Path | None:
    """Where to draw; beside ``--out`` only where matplotlib is installed."""
    if "picture" in given:
        return Path(given["picture"])
    if "out" not in given or find_spec("matplotlib") is None:
        return None
    out: Path = given["out"]
    return out.with_suffix(".png")


def _check_output(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Find out before minutes of work that a file cannot be written."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{option} is {path}; expected a name that ends in {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{option} is {path}, a folder; expected the name of a file")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"{option} is {path} and nothing can be written in {folder}; expected another folder")


def _estimated(given: dict[str, Any]) -> Prototypes:
    from fastproto.prototypes import estimate_prototypes

    settings = {name: value for name, value in given.items() if name not in ("num_classes", "dim", "out", "picture")}
    count, dim, seed = given["num_classes"], given["dim"], given.get("seed", 0)
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed is {seed}; expected 0 <= seed < 2^32")
    # The vectors, their gradient and the two of a step, in float64.
    if count > 0 and dim > 0 and 32 * count * dim > _memory():
        raise ValueError(
            f"--num-classes is {count} and --dim {dim}; such prototypes need {32 * count * dim / 2**30:.0f} GiB and "
            f"this machine has {_memory() / 2**30:.0f}: expected fewer"
        )
    _check_device(given.get("device", "cpu"))
    return estimate_prototypes(count, dim, progress=sys.stderr is not None and sys.stderr.isatty(), **settings)


def _memory() -> float:
    """Bytes of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch's, for names and for devices not there
        raise ValueError(f"--device is {device}, which is not there; expected cpu, or cuda on a GPU") from error


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


# --- fastproto-predict -----------------------------------------------------------------------------------------------


def predict(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-predict."""
    parser = Parser(
        prog="fastproto-predict",
        description="Print labels and cosines for images, with a checkpoint of fastproto-train.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder (its best checkpoint)")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("-k", type=int, default=1, help="labels for each image (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    unread: list[Path] = []
    code = _run_alone(lambda: _predict(parser.parse_args(_given(args)), unread), args, ALL_SIGNALS)
    return code or (2 if unread else 0)


def _predict(options: argparse.Namespace, unread: list[Path]) -> None:
    """Label the pictures, in order; those that cannot be read are named on standard error and put into ``unread``."""
    import torch

    from fastproto.training.checkpoint_files import load_classifier

    _check_device(options.device)
    classifier = load_classifier(options.checkpoint, options.device)
    if not 1 <= options.k <= len(classifier.class_names):
        raise ValueError(f"-k is {options.k}; expected 1..{len(classifier.class_names)}, the number of classes")
    for path in options.images:
        try:
            image = _read_image(path, classifier)
        except (ValueError, OSError) as error:
            unread.append(path)
            _say("error: " + _message(error))
            continue
        with torch.no_grad():
            features = classifier(image[None].to(options.device))
            labels, cosines = classifier.head.predict_with_cosines(features, options.k)
        found = zip(labels[0].tolist(), cosines[0].tolist(), strict=True)
        print(path, *(f"{classifier.class_names[label]}\t{cosine:.4f}" for label, cosine in found), sep="\t")


def _read_image(path: Path, classifier: Any) -> Any:
    from fastproto.data.decode import reason, with_picture

    if not path.exists():
        raise FileNotFoundError(f"no image {path}; expected a file that Pillow can read")
    try:
        return with_picture(path, classifier.preprocessing.read)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable image ({reason(error.__cause__)}); expected a whole PNG, JPEG or the like"
        ) from error
