"""The pictures in a run folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fastproto import plots
from fastproto.data import DataSplits, collate
from fastproto.data.splits import LabelledImages
from fastproto.head import PrototypeHead
from fastproto.training.classifier import Classifier, load_classifier


def draw_pictures(folder: Path, data: DataSplits) -> None:
    """Draw the pictures from ``metrics.csv`` and ``best.ckpt``."""
    classifier = load_classifier(folder / "checkpoints" / "best.ckpt")
    head, names = classifier.head, data.class_names
    metrics = folder / "metrics.csv"
    plots.draw_curves(metrics, folder / "curves.png")
    plots.draw_changed(metrics, folder / "changed.png")
    if isinstance(head, PrototypeHead):
        vectors = head.class_means
        title = "Cosines between class means"
    else:
        vectors = head.weight_by_label().detach()
        title = "Cosines between class weights"
    plots.draw_cosines(vectors.float().numpy(), names, folder / "cosines.png", title=title)
    if isinstance(head, PrototypeHead) and head.dim == 3:
        features, labels = _some_features(classifier, data.validation)
        plots.draw_sphere(
            head.weight_by_label().float().numpy(),
            names,
            features.float().numpy(),
            labels.numpy(),
            folder / "sphere.png",
            title="Prototypes and validation samples",
        )


@torch.no_grad()
def _some_features(classifier: Classifier, dataset: LabelledImages, count: int = 1000) -> tuple[Tensor, Tensor]:
    indices = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long().tolist()
    images, labels = collate([dataset[i] for i in indices])
    return torch.cat([classifier(part) for part in images.split(128)]), labels
