"""fastproto-predict: labels and cosines for images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fastproto
from fastproto.cli.command_runner import print_error, run_command
from fastproto.cli.device_option import check_device
from fastproto.cli.error_messages import one_line
from fastproto.cli.parser import Parser
from fastproto.support.exit_codes import BAD_INPUT, DONE

if TYPE_CHECKING:
    from torch import Tensor

    from fastproto.training.classifier import Classifier


def predict(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-predict."""
    unread: list[Path] = []
    code = run_command(lambda given: _predict(parse_predict(given), unread), args)
    return code or (BAD_INPUT if unread else DONE)


def parse_predict(args: list[str]) -> argparse.Namespace:
    """Parse the command-line arguments.

    Raises:
        ValueError: an unknown option or value, in one sentence.
        SystemExit: after --help or --version.
    """
    parser = Parser(
        prog="fastproto-predict",
        description="Print labels and cosines for images, with a checkpoint of fastproto-train.",
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a run folder (its best checkpoint)")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("-k", type=int, default=1, help="labels for each image (default 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _predict(options: argparse.Namespace, unread: list[Path]) -> None:
    """Print the labels of the images; report unreadable ones on standard error and append them to ``unread``."""
    import torch

    from fastproto.training.classifier import load_classifier

    check_device(options.device)
    classifier = load_classifier(options.checkpoint, options.device)
    if not 1 <= options.k <= len(classifier.class_names):
        raise ValueError(f"-k is {options.k}; expected 1..{len(classifier.class_names)}, the number of classes")
    for path in options.images:
        try:
            image = _read_image(path, classifier)
        except (ValueError, OSError) as error:
            unread.append(path)
            print_error("error: " + one_line(error))
            continue
        with torch.no_grad():
            features = classifier(image[None].to(options.device))
            labels, cosines = classifier.head.predict_with_cosines(features, options.k)
        found = zip(labels[0].tolist(), cosines[0].tolist(), strict=True)
        print(path, *(f"{classifier.class_names[label]}\t{cosine:.4f}" for label, cosine in found), sep="\t")


def _read_image(path: Path, classifier: Classifier) -> Tensor:
    """Read an image as the training did: uint8 [channels, H, W]."""
    from fastproto.data.decode import reason, with_picture

    if not path.exists():
        raise FileNotFoundError(f"no image {path}; expected a file that Pillow can read")
    try:
        return with_picture(path, classifier.preprocessing.read)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a readable image ({reason(error.__cause__)}); expected a whole PNG, JPEG or the like"
        ) from error
