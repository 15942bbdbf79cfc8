"""fastproto-train: a training run from the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastproto.cli.run_command import run_command
from fastproto.cli.train_arguments import parse_train


def train(args: Sequence[str] | None = None) -> int:
    """Entry point of fastproto-train."""
    return run_command(_train, args)


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
