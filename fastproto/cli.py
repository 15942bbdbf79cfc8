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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastproto
from fastproto.stopping import how_to_go_on, stopping
from fastproto.training.command_line import parse_train

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
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
    except SystemExit:
        raise
    except BaseException as error:  # any: the last line of defence, and what nobody foresaw says so and exits with 1
        stopping.fail(error)  # ends the process where other ranks wait for it
        code, text = _explain(error)
        with suppress(OSError, ValueError):  # standard error may be closed, or have no room either
            print(text, file=sys.stderr, flush=True)
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _give_up_stdout()
        return code
    return 0


def _run_alone(command: Callable[[], None], args: Sequence[str] | None, signals: Sequence[signal.Signals]) -> int:
    """The same where this process is the command: these signals end it at once, wherever it is, and its other ranks."""
    if args is None:
        stopping.explain = _explain
        stopping.watch(signals)
    code = _run(command)
    if args is None:
        stopping.finish(wait=20)
    return code


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
    if isinstance(error, ValueError | ImportError | OSError) or kind == "MisconfigurationException":
        return 2, message or kind
    return 1, f"unexpected {kind}: {message}; set FASTPROTO_TRACEBACK=1 to see where, and please report it"


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
    return _run_alone(lambda: _train(list(sys.argv[1:] if args is None else args)), args, ALL_SIGNALS)


def _train(args: list[str]) -> None:
    config = parse_train(args)
    from fastproto.training import fit

    result = fit(config)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0:
        print(f"validation accuracy {100 * result.validation_accuracy:.2f} % (the checkpoint was chosen on it)")
        print(f"test accuracy       {100 * result.test_accuracy:.2f} %, top-5 {100 * result.test_accuracy_top5:.2f} %")
        print(f"run folder          {result.folder}", flush=True)


# --- fastproto-prototypes --------------------------------------------------------------------------------------------


def prototypes(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-prototypes."""
    parser = argparse.ArgumentParser(
        prog="fastproto-prototypes",
        description="Make, measure and draw prototypes: unit vectors spread over the sphere.",
    )
    parser.add_argument("--num-classes", type=int, help="how many prototypes")
    parser.add_argument("--dim", type=int, help="dimension of the space")
    parser.add_argument("--out", type=Path, help="file to write: .safetensors, .npz, .pth (authors') or .npy (HPN's)")
    parser.add_argument("--measure", type=Path, metavar="FILE", help="measure this file instead of making prototypes")
    parser.add_argument(
        "--words", type=Path, metavar="FILE", help="word vectors (text or .npz) as prototypes: see --names"
    )
    parser.add_argument("--names", type=Path, metavar="FILE", help="class names for --words, one a line")
    parser.add_argument("--objective", default="uniform", choices=("uniform", "max_cosine"))
    parser.add_argument("--method", default="auto", choices=("auto", "lbfgs", "binary_code", "sgd"))
    parser.add_argument("--t", type=float, default=2.0, help="sharpness of the Gaussian potential (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-passes", type=int, help="sweeps over all pairs to spend at most")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS")
    parser.add_argument("--form", default="eq5", choices=("eq5", "within_batch"), help="of --method sgd")
    parser.add_argument("--subset-size", type=int, metavar="ROWS", help="of --method sgd: rows moved in a step")
    parser.add_argument("--lr", type=float, default=0.1, help="of --method sgd (default 0.1)")
    parser.add_argument("--iterations", type=int, default=1000, help="of --method sgd (default 1000)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor write the cache")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="where to draw (default: beside --out)")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    options = parser.parse_args(args)
    return _run_alone(lambda: _prototypes(options), args, (signal.SIGTERM,))  # Ctrl-C ends a search with its best


def _prototypes(options: argparse.Namespace) -> None:
    from fastproto.prototypes import estimate_prototypes, load_prototypes, load_word_vectors
    from fastproto.prototypes.files import SUFFIXES
    from fastproto.prototypes.words import read_names

    if options.out is not None and options.out.suffix not in SUFFIXES:
        raise ValueError(f"--out is {options.out}; expected a name that ends in {', '.join(SUFFIXES)}")
    if options.measure is not None:
        found = load_prototypes(options.measure, t=options.t)
    elif options.words is not None:
        if options.names is None or not options.names.is_file():
            raise ValueError(f"--names is {options.names}; expected a text file with a class name in each line")
        found = load_word_vectors(options.words, read_names(options.names), t=options.t)
    elif options.num_classes is None or options.dim is None:
        raise ValueError("nothing to do; expected --num-classes C --dim D [--out FILE], --measure FILE or --words FILE")
    else:
        found = estimate_prototypes(
            options.num_classes,
            options.dim,
            objective=options.objective,
            t=options.t,
            method=options.method,
            seed=options.seed,
            device=options.device,
            max_passes=options.max_passes,
            time_limit=options.time_limit,
            progress=sys.stderr.isatty(),
            cache=not options.no_cache,
            form=options.form,
            subset_size=options.subset_size,
            lr=options.lr,
            iterations=options.iterations,
        )
    print(quality_table(found))
    if options.out is not None:
        found.save(options.out)
        print(f"written to          {options.out}")
    picture = options.picture or (options.out.with_suffix(".png") if options.out is not None else None)
    if picture is not None:
        from fastproto.pictures import draw_prototypes

        count, dim = found.vectors.shape
        title = f"{count} prototypes in {dim} dimensions ({found.method})"
        draw_prototypes(found.vectors.cpu().numpy(), picture, title=title, bound=found.quality.max_cosine_bound)
        sphere = f" and {picture.with_stem(picture.stem + '-sphere')}" if dim == 3 else ""
        print(f"drawn in            {picture}{sphere}")


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
    parser = argparse.ArgumentParser(
        prog="fastproto-predict",
        description="Print labels and cosines for images, with a checkpoint of fastproto-train.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder (its best checkpoint)")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("-k", type=int, default=1, help="labels for each image (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    options = parser.parse_args(args)
    unread: list[Path] = []
    return _run_alone(lambda: _predict(options, unread), args, ALL_SIGNALS) or (2 if unread else 0)


def _predict(options: argparse.Namespace, unread: list[Path]) -> None:
    """Label the pictures, in order; those that cannot be read are named on standard error and put into ``unread``."""
    import torch

    from fastproto.training.checkpoints import load_classifier

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {options.device}, which is not there; expected cpu, or cuda on a GPU") from error
    classifier = load_classifier(options.checkpoint, options.device)
    if not 1 <= options.k <= len(classifier.class_names):
        raise ValueError(f"-k is {options.k}; expected 1..{len(classifier.class_names)}, the number of classes")
    _print_any_name()
    for path in options.images:
        try:
            image = _read_image(path, classifier)
        except (ValueError, OSError) as error:
            print("error: " + _message(error), file=sys.stderr)
            unread.append(path)
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


def _print_any_name() -> None:
    """Escape what the encoding of standard output lacks, as on standard error: file names need not be text."""
    from io import TextIOWrapper

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
