"""A trained run and a folder of pictures, which the tests of several commands use."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastproto import cli
from fastproto.data import load_data

RUN = ["--model", "mlp", "--optim.epochs", "2", "--progress", "false", "--accelerator", "cpu"]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on digits."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    assert cli.train([*RUN, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def digit_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CLASS/NUMBER.png of the 450 test digits; the strokes of every third are dark on light, as ink on paper."""
    from PIL import Image

    folder, part = tmp_path_factory.mktemp("pictures"), load_data("digits").test
    for index in range(len(part)):
        pixels, label = part[index]
        path = folder / str(int(label)) / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((255 - pixels[0] if index % 3 == 0 else pixels[0]).numpy()).save(path)
    return folder
