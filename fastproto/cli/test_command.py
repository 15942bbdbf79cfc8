"""fastproto-test: the accuracy of a trained classifier on a folder of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.device_option import check_device
from fastproto.cli.parser import Parser
from fastproto.cli.run_options import CHECKPOINT, Unread, add_batch_options, check_batch_size, check_writable
from fastproto.support.exit_codes import BAD_INPUT, DONE

SHOWN = 20  # classes that are printed, the least accurate first


def test(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-test."""
    unread = Unread()
    code = run_command(lambda given: _test(parse_test(given), unread), args)
    return code or (BAD_INPUT if unread.count else DONE)


def parse_test(args: list[str]) -> argparse.Namespace:
    """Parse the command-line arguments.

    Raises:
        ValueError: an unknown option or value, in one sentence.
        SystemExit: after --help or --version.
    """
    parser = Parser(
        prog="fastproto-test",
        description="Measure a checkpoint of fastproto-train on a folder with a folder of pictures for each class.",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("folder", type=Path, help="a folder with FOLDER/CLASS/*, named as the classes of the run")
    parser.add_argument(
        "--out", type=Path, help="folder for test.json and confusion.png (default: test in the run folder)"
    )
    add_batch_options(parser)
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _test(options: argparse.Namespace, unread: Unread) -> None:
    from fastproto.data.picture_folder import list_pictures
    from fastproto.training.classifier import load_classifier
    from fastproto.training.config_files import run_of
    from fastproto.training.folder_test import labels_of_run, tally, write_results

    check_batch_size(options.batch_size)
    check_device(options.device)
    classifier = load_classifier(options.checkpoint, options.device)
    out = _results_of(run_of(options.checkpoint), options.checkpoint) if options.out is None else options.out
    check_writable("--out", out / "test.json")
    folder = list_pictures(options.folder)
    labels = labels_of_run(folder, classifier.class_names)
    found = tally(classifier, folder.paths, labels, unread, batch_size=options.batch_size)
    write_results(found, out, checkpoint=str(options.checkpoint), folder=str(options.folder))
    print(f"pictures            {found.pictures}" + (f", {found.unread} not readable" if found.unread else ""))
    top5 = "" if found.top5 is None else f", top-5 {100 * found.top5:.2f} %"
    print(f"accuracy            {100 * found.top1:.2f} %{top5}")
    classes = sorted(found.per_class(), key=lambda row: row[2])
    for name, count, accuracy in classes[:SHOWN]:
        print(f"  {100 * accuracy:6.2f} % of {count:<8}{name}")
    if len(classes) > SHOWN:
        print(f"  {len(classes) - SHOWN} more classes, all of the same or higher accuracy, are in test.json")
    print(f"written to          {out}")


def _results_of(run: Path, checkpoint: Path) -> Path:
    """The default folder of the results, which belong to a run: to a folder that was given, or that of a checkpoint."""
    if not (checkpoint.is_dir() or (run / "config.yaml").is_file()):
        raise ValueError(f"the checkpoint {checkpoint} is in no run folder; give a folder for the results with --out")
    return run / "test"
