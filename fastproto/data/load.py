"""Data sets by name."""

from __future__ import annotations

from difflib import get_close_matches
from typing import get_args

from .digits import load_digits
from .folder import load_folder
from .glyphs import load_glyphs
from .picture_cache import CacheMode
from .splits import DataSplits

DATASETS = ("digits", "glyphs", "image-folder")


def load_data(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    root: str | None = None,
    fonts: str | None = None,
    cache: CacheMode = "false",
    progress: bool = False,
) -> DataSplits:
    """Load a data set with its three splits, which are the same on every call so that runs can be compared.

    Args:
        name: ``"digits"`` (8x8 handwriting of scikit-learn), ``"glyphs"`` (printed characters, tested on a font family
            that is not trained on) or ``"image-folder"`` (a folder of pictures per class).
        num_classes: take this many classes; None: 10 for digits, 200 for glyphs, all for image-folder.
        image_size: height and width in pixels, at least 8; None: 8, 32, or what suits the folder.
        root: the folder of ``"image-folder"``.
        fonts: a folder of font files for ``"glyphs"``, instead of the fonts that come with matplotlib.
        cache: ``"auto"`` or ``"true"``: decode the pictures of ``"image-folder"`` now, hold them in memory as uint8 and
            keep them in ``$XDG_CACHE_HOME/fastproto/pictures`` for the next time; ``"auto"`` only if they take at most
            2 GiB and a quarter of the free memory. ``"false"``: decode a picture when it is asked for.
        progress: draw a bar on standard error while pictures are decoded, after two seconds.

    Raises:
        ValueError: an unknown name, or an argument that the data set cannot honour.
        FileNotFoundError: a folder that does not exist.
        ImportError: a package that the data set needs is not installed.
    """
    if name not in DATASETS:
        close = get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown data set {name!r}: {hint}Give one of {', '.join(DATASETS)}")
    if root is not None and name != "image-folder":
        raise ValueError(f"the data set {name!r} got root={root!r}: leave root out, or use the data set 'image-folder'")
    if fonts is not None and name != "glyphs":
        raise ValueError(f"the data set {name!r} got fonts={fonts!r}: leave fonts out, or use the data set 'glyphs'")
    if cache not in get_args(CacheMode):
        raise ValueError(f"cache={cache!r} is unknown: give one of {', '.join(get_args(CacheMode))}")
    if image_size is not None and image_size < 8:
        raise ValueError(f"image_size={image_size} is too small: give at least 8 pixels")
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes={num_classes} is too small: give at least 2")
    if name == "digits":
        if num_classes not in (None, 10):
            raise ValueError(f"the data set 'digits' has 10 classes, but got num_classes={num_classes}: leave it out")
        return load_digits(image_size)
    if name == "glyphs":
        return load_glyphs(num_classes, image_size, fonts)
    return load_folder(root, num_classes, image_size, cache=cache, progress=progress)
