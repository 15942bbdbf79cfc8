"""What every picture is."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def assert_picture(path: Path) -> None:
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 200
    assert np.ptp(pixels[..., :3]) > 0.5, f"{path.name} is blank"
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
