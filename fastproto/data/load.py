"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import get_args

from fastproto.support.data_options import Augment

from .augment import choose_augmentation
from .digits import load_digits
from .folder import load_folder
from .glyphs import load_glyphs
from .imagenet import load_imagenet, load_imagenet200, load_imagenet_lt
from .imbalance import check_imbalance, long_tailed
from .picture_cache import CacheMode, Caching
from .splits import DataSplits
from .torchvision_sets import SOURCES, load_torchvision_set

DATASETS = ("digits", "glyphs", *SOURCES, "imagenet", "imagenet200", "imagenet-lt", "image-folder")
ROOTED = DATASETS[2:]
TAKEN_BY = {
    "root": ROOTED,
    "fonts": ("glyphs",),
    "lists": ("imagenet-lt",),
    "download": tuple(SOURCES),
    "validation": tuple(name for name in ROOTED if name != "imagenet-lt"),
}
"""Arguments that some sets only can honour."""


def load_data(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    root: str | None = None,
    fonts: str | None = None,
    lists: str | None = None,
    download: bool = False,
    validation: float | None = None,
    imbalance: float | None = None,
    augment: Augment = "auto",
    cache: CacheMode = "false",
    progress: bool = False,
) -> DataSplits:
    """Load a data set with its three splits, which are the same on every call so that runs can be compared.

    Args:
        name: ``"digits"`` (8x8 handwriting of scikit-learn), ``"glyphs"`` (printed characters, tested on a font family
            that is not trained on), ``"cifar10"``, ``"cifar100"``, ``"svhn"``, ``"stl10"`` (in memory, tested on their
            test parts), ``"imagenet"``, ``"imagenet200"`` (tested on their val parts), ``"imagenet-lt"`` (the published
            lists) or ``"image-folder"`` (a folder of pictures per class).
        num_classes: use the first classes only; None: 200 for glyphs, all for the others.
        image_size: height and width in pixels, at least 8; None: the set's own size, for a folder that of its first
            picture or 224.
        root: the folder of the set; none for digits and glyphs.
        fonts: a folder of font files for ``"glyphs"``, instead of the fonts that come with matplotlib.
        lists: the folder of the lists of ``"imagenet-lt"``; None: root.
        download: fetch the files of ``"cifar10"``, ``"cifar100"``, ``"svhn"`` or ``"stl10"`` that are not in root.
        validation: fraction of the training pictures that is held out where the set has no validation part, in (0, 1);
            None: 0.1.
        imbalance: keep a long tail of the training pictures: class c of C has at most
            ``floor(largest * imbalance ** (c / (C - 1)))``, and at least 1; in (0, 1]. Held-out parts stay whole.
        augment: of training pictures: ``"auto"`` (what suits the set), ``"none"``, ``"jitter"`` (small affine changes),
            ``"crop_flip"`` (pad by 4 and crop) or ``"resized_crop"`` (resize a random part of the picture).
        cache: of pictures in files: ``"auto"`` or ``"true"`` decodes them now, holds them in memory as uint8 and keeps
            them in ``$XDG_CACHE_HOME/fastproto/pictures`` for the next time; ``"auto"`` only if they take at most 2 GiB
            and a quarter of the free memory. ``"false"`` decodes a picture when it is indexed.
        progress: draw a bar on standard error while pictures are decoded, after two seconds.

    Raises:
        ValueError: an unknown name, an argument that does not fit the data set, or files that cannot be read.
        FileNotFoundError: a folder or file that does not exist.
        OSError: a download that failed.
        ImportError: a package that the data set needs is not installed.
    """
    _check(name, num_classes, image_size, validation, imbalance, cache)
    caching = Caching(cache, progress)
    given = {"root": root, "fonts": fonts, "lists": lists, "download": download or None, "validation": validation}
    for argument, value in given.items():
        _check_taken(name, argument, value)
    loaders: dict[str, Callable[[], DataSplits]] = {
        "digits": lambda: load_digits(image_size),
        "glyphs": lambda: load_glyphs(num_classes, image_size, fonts),
        "imagenet": lambda: load_imagenet(root, num_classes, image_size, validation, caching=caching),
        "imagenet200": lambda: load_imagenet200(root, num_classes, image_size, validation, caching=caching),
        "imagenet-lt": lambda: load_imagenet_lt(root, lists, num_classes, image_size, caching=caching),
        "image-folder": lambda: load_folder(root, num_classes, image_size, validation, caching=caching),
    }
    torchvisions = partial(load_torchvision_set, name, root, num_classes, image_size, validation, download=download)
    data = loaders.get(name, torchvisions)()
    if imbalance is not None:
        data = replace(data, train=long_tailed(data.train, len(data.class_names), imbalance))
    return replace(data, augmentation=choose_augmentation(augment, data.augmentation))


def _check(
    name: str,
    num_classes: int | None,
    image_size: int | None,
    validation: float | None,
    imbalance: float | None,
    cache: CacheMode,
) -> None:
    if name not in DATASETS:
        close = get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown data set {name!r}: {hint}Give one of {', '.join(DATASETS)}")
    if cache not in get_args(CacheMode):
        raise ValueError(f"cache={cache!r} is unknown: give one of {', '.join(get_args(CacheMode))}")
    if image_size is not None and image_size < 8:
        raise ValueError(f"image_size={image_size} is too small: give at least 8 pixels")
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes={num_classes} is too small: give at least 2")
    if name == "digits" and num_classes not in (None, 10):
        raise ValueError(f"the data set 'digits' has 10 classes, but got num_classes={num_classes}: leave it out")
    if validation is not None and not 0 < validation < 1:
        raise ValueError(f"validation={validation} is not between 0 and 1: give a part such as 0.1")
    if imbalance is not None:
        check_imbalance(imbalance)


def _check_taken(name: str, argument: str, value: object) -> None:
    takers = TAKEN_BY[argument]
    if value is None or name in takers:
        return
    other = f"the data set {takers[0]!r}" if len(takers) == 1 else f"one of {', '.join(takers)}"
    raise ValueError(f"the data set {name!r} got {argument}={value!r}: leave {argument} out, or use {other}")
