"""fastproto-embed: the normalised features of a folder of pictures, as an .npz file."""

from __future__ import annotations

import argparse
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastproto
from fastproto.cli.command_runner import run_command
from fastproto.cli.device_option import check_device
from fastproto.cli.parser import Parser
from fastproto.cli.run_options import CHECKPOINT, Unread, add_batch_options, check_batch_size, check_output
from fastproto.support.exit_codes import BAD_INPUT, DONE


def embed(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-embed."""
    unread = Unread()
    code = run_command(lambda given: _embed(parse_embed(given), unread), args)
    return code or (BAD_INPUT if unread.count else DONE)


def parse_embed(args: list[str]) -> argparse.Namespace:
    """Parse the command-line arguments.

    Raises:
        ValueError: an unknown option or value, in one sentence.
        SystemExit: after --help or --version.
    """
    parser = Parser(
        prog="fastproto-embed",
        description="Write the features of a folder of pictures, of length 1, with a checkpoint of fastproto-train.",
    )
    parser.add_argument("checkpoint", type=Path, help=CHECKPOINT)
    parser.add_argument("folder", type=Path, help="a folder of pictures; its folders are classes if it has no others")
    parser.add_argument("out", type=Path, help="the .npz file to write: features, paths, labels and class_names")
    add_batch_options(parser)
    parser.add_argument("--version", action="version", version=fastproto.__version__)
    found: argparse.Namespace = parser.parse_args(args)
    return found


def _embed(options: argparse.Namespace, unread: Unread) -> None:
    import numpy as np
    import torch

    from fastproto.data.picture_folder import list_pictures
    from fastproto.support.atomic_files import write_memory
    from fastproto.training.classifier import load_classifier
    from fastproto.training.features import check_any_read, features_of

    check_batch_size(options.batch_size)
    check_output("the output", options.out, [".npz"])
    check_device(options.device)
    classifier = load_classifier(options.checkpoint, options.device)
    folder = list_pictures(options.folder)
    numbers: list[int] = []
    features: list[torch.Tensor] = []
    for some, found in features_of(classifier, folder.paths, unread, batch_size=options.batch_size):
        numbers += some
        features.append(torch.nn.functional.normalize(found.float(), dim=1).cpu())
    check_any_read(len(numbers), len(folder.paths))
    paths = [os.path.relpath(folder.paths[number], folder.top) for number in numbers]
    readable = [path.encode(errors="backslashreplace").decode() for path in paths]
    arrays: dict[str, Any] = {"features": torch.cat(features).numpy(), "paths": np.array(readable, dtype=np.str_)}
    if folder.labels is not None:
        arrays |= {"labels": folder.labels[numbers].numpy(), "class_names": np.array(folder.class_names)}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_memory(options.out, content)
    print(f"{len(numbers)} features in {options.out}")
