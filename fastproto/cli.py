"""The commands fastproto-train, fastproto-prototypes and fastproto-predict; nothing heavy is imported before its use.

Exit codes: 0 done, 1 something unexpected, 2 bad input or a file that cannot be written (one sentence on standard
error; the whole traceback where FASTPROTO_TRACEBACK is set), 130 interrupted (SIGINT, Ctrl-C), 143 terminated
(SIGTERM, what stopping a container sends). Where a signal ends one of several ranks, all end with 128 + its number.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastproto
from fastproto.stopping import how_to_go_on, stopping

if TYPE_CHECKING:
    from fastproto.prototypes import Prototypes
    from fastproto.training.config import TrainConfig

ALL_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GROUPS = ("data", "model", "head", "optim")  # `--data glyphs` is short for `--data.name glyphs`


def _run(command: Callable[[], None]) -> int:
    """Turn what users can cause into one sentence and an exit code."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_stdout()
    except SystemExit:
        raise
    except BaseException as error:
        stopping.fail(error)  # ends the process where other ranks wait for it
        code, text = _explain(error)
        if code == 1:
            raise
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
    """Exit code and text of an error: a sentence for what users can cause, else the traceback."""
    if isinstance(error, KeyboardInterrupt):
        advice = how_to_go_on(str(error))
        return 130, "\ninterrupted" + (f"; {advice}" if advice else "")
    if isinstance(error, (ValueError, TypeError, ImportError, OSError)) and not os.environ.get("FASTPROTO_TRACEBACK"):
        advice = how_to_go_on(stopping.folder) if isinstance(error, OSError) else None
        return 2, "error: " + _message(error) + (f": {advice}" if advice else "")
    import traceback

    return 1, "".join(traceback.format_exception(error)).rstrip()


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


def parse_train(args: list[str]) -> TrainConfig:
    """The configuration that command-line arguments stand for.

    Raises:
        ValueError: an unknown option, key or value, in one sentence.
        SystemExit: after --help, --version or --print_config.
    """
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ImportError as error:
        raise ImportError("fastproto-train needs jsonargparse: pip install 'fastproto[train]'") from error
    from fastproto.training.config import TrainConfig

    parser = ArgumentParser(
        prog="fastproto-train",
        description="Train a hyperspherical classifier: fixed prototypes, labels re-assigned to them as it learns.",
        epilog="--data NAME is short for --data.name NAME (so --model, --head, --optim); - and _ are the same.",
        exit_on_error=False,
        version=fastproto.__version__,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    parser.add_class_arguments(TrainConfig, as_group=False)
    args = _normalise_arguments(args)
    resume = _value_of(args, "--resume")
    if resume is not None:
        config_file = _config_of_run(resume)
        args = ["--config", str(config_file), "--out", str(config_file.parent), *args]
    try:
        parsed = parser.parse_args(args)
    except ArgumentError as error:
        raise ValueError(_one_sentence(str(error), parser)) from error
    values = parsed.as_dict()
    values.pop("config", None)
    config = TrainConfig.from_dict(values)
    config.check()
    return config


def _normalise_arguments(args: list[str]) -> list[str]:
    """``--num-nodes`` means ``--num_nodes``, ``--data glyphs`` means ``--data.name glyphs``."""
    normal = []
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg[2:].partition("=")
            name = name.replace("-", "_")
            arg = "--" + (f"{name}.name" if name in GROUPS else name) + equals + value
        normal.append(arg)
    return normal


def _value_of(args: list[str], option: str) -> str | None:
    for at, arg in enumerate(args):
        if arg.startswith(f"{option}="):
            return arg.partition("=")[2]
        if arg == option and at + 1 < len(args):
            return args[at + 1]
    return None


def _config_of_run(resume: str) -> Path:
    path = Path(resume)
    folder = path if path.is_dir() else path.parent.parent
    config = folder / "config.yaml"
    if not path.exists() or not config.is_file():
        raise FileNotFoundError(
            f"no run to resume at {resume}; expected a run folder of fastproto-train or a checkpoint"
        )
    return config


def _one_sentence(message: str, parser: Any) -> str:
    """jsonargparse's message without its usage text, with the nearest known option for an unknown one."""
    from difflib import get_close_matches

    message = " ".join(message.split())
    known = [option for action in parser._actions for option in action.option_strings]
    for word in message.replace("'", " ").replace('"', " ").replace("=", " ").split():
        if word.startswith("--") and word not in known:
            near = get_close_matches(word, known, n=1)
            return f"unknown option {word}" + (f"; did you mean {near[0]}?" if near else "; see fastproto-train --help")
    return message


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

    if options.out is not None and options.out.suffix not in SUFFIXES:
        raise ValueError(f"--out is {options.out}; expected a name that ends in {', '.join(SUFFIXES)}")
    if options.measure is not None:
        found = load_prototypes(options.measure, t=options.t)
    elif options.words is not None:
        if options.names is None or not options.names.is_file():
            raise ValueError(f"--names is {options.names}; expected a text file with a class name in each line")
        names = [name.strip() for name in options.names.read_text(encoding="utf-8").splitlines() if name.strip()]
        found = load_word_vectors(options.words, names, t=options.t)
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
    return _run_alone(lambda: _predict(options), args, ALL_SIGNALS)


def _predict(options: argparse.Namespace) -> None:
    import torch

    from fastproto.training.checkpoints import load_classifier

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {options.device}, which is not there; expected cpu, or cuda on a GPU") from error
    classifier = load_classifier(options.checkpoint, options.device)
    if not 1 <= options.k <= len(classifier.class_names):
        raise ValueError(f"-k is {options.k}; expected 1..{len(classifier.class_names)}, the number of classes")
    for path in options.images:
        with torch.no_grad():
            features = classifier(_read_image(path, classifier)[None].to(options.device))
            labels, cosines = classifier.head.predict_with_cosines(features, options.k)
        found = zip(labels[0].tolist(), cosines[0].tolist(), strict=True)
        print(path, *(f"{classifier.class_names[label]}\t{cosine:.4f}" for label, cosine in found), sep="\t")


def _read_image(path: Path, classifier: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise FileNotFoundError(f"no image {path}; expected a file that Pillow can read")
    try:
        with Image.open(path) as image:
            return classifier.preprocessing.read(image)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not a readable image; expected a whole PNG, JPEG or the like") from error
