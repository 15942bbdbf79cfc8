"""Accuracies in percent that the paper's authors have published, in the README of their repository (July 2024).

That README gives no number for a table of the paper; CIFAR-100's stand there under "CIFAR-10", and its columns of
ImageNet-200 for D = 25, 50 and 100 repeat those of CIFAR-100, so that they are "not available" here.
"""

from __future__ import annotations

Published = dict[tuple[str, int, str], float]  # by data, D and method

_METHODS = ("psc", "word2vec", "hpn", "dynamic")
BALANCED: Published = {
    ("cifar100", dim, method): accuracy
    for dim, accuracies in {
        10: (25.67, 29.0, 51.1, 57.21),
        25: (60.0, 44.5, 63.0, 64.63),
        50: (60.6, 54.3, 64.7, 66.22),
        100: (62.1, 57.6, 65.0, 62.85),
    }.items()
    for method, accuracy in zip(_METHODS, accuracies, strict=True)
} | {
    ("imagenet200", 200, method): accuracy for method, accuracy in zip(_METHODS, (33.1, 30.0, 44.7, 37.28), strict=True)
}
IMAGENET_RESNET_50: Published = {("imagenet", 512, "psc"): 76.51, ("imagenet", 512, "dynamic"): 77.47}
IMAGENET_SWIN_T: Published = {("imagenet", 512, "psc"): 76.91, ("imagenet", 512, "dynamic"): 77.26}
LONG_TAIL: Published = {
    (f"{data}-lt-{imbalance}", dim, method): accuracy
    for data, dim, table in (
        ("cifar10", 64, ((67.3, 72.8, 78.6), (71.9, 76.5, 81.0), (71.5, 76.9, 81.4))),
        ("svhn", 64, ((40.5, 40.9, 49.3), (42.8, 45.7, 49.8), (40.9, 47.0, 49.7))),
        ("stl10", 64, ((33.1, 37.9, 38.8), (33.5, 37.2, 37.9), (35.7, 35.6, 38.0))),
        ("cifar100", 128, ((38.7, 43.0, 48.1), (40.9, 45.3, 50.4), (41.3, 44.9, 50.7))),
    )
    for method, accuracies in zip(("psc", "etf", "dynamic"), table, strict=True)
    for imbalance, accuracy in zip(("0.005", "0.01", "0.02"), accuracies, strict=True)
}
