"""fastproto-predict: labels and cosines for images and folders of images."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.device_option import check_device
from fastproto.cli.parser import Parser
from fastproto.cli.run_options import CHECKPOINT, Unread, add_batch_options, check_batch_size, check_output
from fastproto.support.exit_codes import BAD_INPUT, DONE

if TYPE_CHECKING:
    from fastproto.training.classifier import Classifier

Found = tuple[Path, list[tuple[str, float]]]  # an image, its labels and their cosines, best first


def predict(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-predict."""
    unread = Unread()
    code = run_command(lambda given: _predict(parse_predict(given), unread), args)
    return code or (BAD_INPUT if unread.count else DONE)


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
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="an image, or a folder with images in it")
    parser.add_argument("-k", type=int, default=1, help="labels for each image (default 1)")
    parser.add_argument("--out", type=Path, metavar="CSV", help="write a table instead of printing")
    add_batch_options(parser)
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _predict(options: argparse.Namespace, unread: Unread) -> None:
    """Print or write the labels of the images; report unreadable ones."""
    from fastproto.data.picture_folder import list_pictures
    from fastproto.training.classifier import load_classifier

    check_batch_size(options.batch_size)
    check_output("--out", options.out, [".csv"])
    check_device(options.device)
    classifier = load_classifier(options.checkpoint, options.device)
    if not 1 <= options.k <= len(classifier.class_names):
        raise ValueError(f"-k is {options.k}; expected 1..{len(classifier.class_names)}, the number of classes")
    paths: list[Path] = []
    for path in options.images:
        try:
            paths += list_pictures(path, classes=False).paths if path.is_dir() else [path]
        except ValueError:  # no pictures: reported in its turn
            paths.append(path)
    found = _labels(classifier, paths, options.k, options.batch_size, unread)
    if options.out is not None:
        _write(options.out, found, options.k, len(paths))
        return
    for path, labels in found:
        print(path, *(f"{label}\t{cosine:.4f}" for label, cosine in labels), sep="\t")


def _labels(classifier: Classifier, paths: list[Path], k: int, batch_size: int, unread: Unread) -> Iterator[Found]:
    from fastproto.training.features import features_of

    for numbers, features in features_of(classifier, paths, unread, batch_size=batch_size):
        labels, cosines = classifier.head.predict_with_cosines(features, k)
        for number, row, values in zip(numbers, labels.tolist(), cosines.tolist(), strict=True):
            names = (classifier.class_names[label] for label in row)
            yield paths[number], list(zip(names, values, strict=True))


def _write(out: Path, found: Iterator[Found], k: int, files: int) -> None:
    """A row for each image: path, label, cosine; further labels and cosines in label2, cosine2, ..."""
    from fastproto.support.atomic_files import write_memory
    from fastproto.training.features import check_any_read

    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["path", *(f"{what}{'' if i == 0 else i + 1}" for i in range(k) for what in ("label", "cosine"))])
    count = 0
    for count, (path, labels) in enumerate(found, 1):  # noqa: B007  # the last number is the count
        table.writerow([path, *(cell for label, cosine in labels for cell in (label, f"{cosine:.6f}"))])
    check_any_read(count, files)
    write_memory(out, io.BytesIO(text.getvalue().encode(errors="backslashreplace")))
    print(f"{count} images labelled in {out}")
