"""fastproto-export: a trained classifier as an ONNX file or a program of torch.export."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.parser import Parser
from fastproto.cli.run_options import CHECKPOINT, check_output


def export(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-export."""
    return run_command(lambda given: _export(parse_export(given)), args)


def parse_export(args: list[str]) -> argparse.Namespace:
    """Parse the command-line arguments.

    Raises:
        ValueError: an unknown option or value, in one sentence.
        SystemExit: after --help or --version.
    """
    parser = Parser(
        prog="fastproto-export",
        description="Write a checkpoint of fastproto-train as one file for other programs: images in, labels out.",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("out", type=Path, help="the file to write: .onnx, or .pt2 with --format torch")
    parser.add_argument(
        "--format", choices=("onnx", "torch"), default="onnx", help="onnx (default), or torch for torch.export.load"
    )
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _export(options: argparse.Namespace) -> None:
    from fastproto.training.classifier import load_classifier
    from fastproto.training.export import SUFFIXES, export_model, metadata

    check_output("the output", options.out, [SUFFIXES[options.format]])
    classifier = load_classifier(options.checkpoint)
    checked = export_model(classifier, options.out, options.format)
    facts = metadata(classifier)
    print(f"input               {facts['input']}")
    print(f"pictures            {facts['resize']}")
    print(f"outputs             labels: int64 [B]; {facts['scores']}: float32 [B, {len(classifier.class_names)}]")
    low = " (in the run: bfloat16)" if classifier.config.precision == "bf16-true" else ""
    print(f"precision           float32{low}")
    what = "the same labels and scores as the checkpoint in float32, for batches of 1, 3 and 8"
    print(f"compared            {what if checked else 'no: onnxruntime is not installed'}")
    print(f"written to          {options.out}")
