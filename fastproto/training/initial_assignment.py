"""The initial assignment: random, or each label near its features in the untrained backbone."""

from __future__ import annotations

import copy
import math

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fastproto.data import DataSplits, collate
from fastproto.data.splits import Item
from fastproto.head import PrototypeHead
from fastproto.training.classifier import Classifier
from fastproto.training.metrics import log_renewal
from fastproto.training.seeds import seed_of_first_look
from fastproto.training.settings_and_flags import HeadConfig

ALIGNED_FROM = 100  # classes
SAMPLE_BATCH = 64  # images; the same on any number of devices, and so are batch statistics and class means


def initial_assignment(config: HeadConfig, num_classes: int) -> str:
    """Resolve ``auto``: docs/study.md reports gains at 200 and 1,000 classes and none at 10."""
    if config.initial_assignment != "auto":
        return config.initial_assignment
    ours = config.name == "prototype" and "official" not in (config.loss, config.means)
    return "aligned" if ours and num_classes >= ALIGNED_FROM else "random"


class InitialAssignment(L.Callback):
    """Before the first step, assign each label a prototype near its features in the untrained backbone."""

    def __init__(self, data: DataSplits) -> None:
        self.data = data

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Classifier)
        head, config = module.head, module.config
        if trainer.global_step > 0 or not isinstance(head, PrototypeHead):
            return
        kind = initial_assignment(config.head, head.num_classes)
        if kind == "random":
            return
        means = untrained_means(trainer, module, self.data)
        turn = kind == "aligned"
        found = head.align(class_means=means, seed=config.seed) if turn else head.reassign(class_means=means)
        if log_renewal(trainer, found, head.num_classes, first=True):
            raise KeyboardInterrupt


@torch.no_grad()
def untrained_means(trainer: L.Trainer, module: Classifier, data: DataSplits) -> Tensor:
    """Class means [C, D] float32 of the untrained backbone: sums of unit features, of any length.

    They cover a sample of the training set without augmentation. A copy of the backbone runs in training mode, as in
    the first steps, so that the batch statistics of the original do not change. Ranks share the batches and add their
    sums in float64: the means do not depend on the number of ranks.
    """
    config, head = module.config, module.head
    backbone, own = copy.deepcopy(module.backbone).train(), module.backbone
    indices = sample_of_each_class(data.train.labels, config.head.initial_samples, config.seed)
    # Parts of nearly equal size: a last batch of one image would have no batch statistics.
    batches = indices.tensor_split(math.ceil(len(indices) / SAMPLE_BATCH))
    mine = range(trainer.global_rank, len(batches), trainer.world_size)
    loader: DataLoader[Item] = DataLoader(
        data.train,
        batch_sampler=[batches[number].tolist() for number in mine],
        num_workers=config.data.workers,
        collate_fn=collate,
    )
    sums = torch.zeros(len(data.class_names), head.dim, dtype=torch.float64, device=module.device)
    module.backbone = backbone
    try:
        for number, (images, labels) in zip(mine, loader, strict=True):
            torch.manual_seed(seed_of_first_look(config.seed, number))  # for dropout
            z = F.normalize(module(images.to(module.device)).double(), dim=1)
            sums.index_add_(0, labels.to(module.device), z)
    finally:
        module.backbone = own
    total: Tensor = trainer.strategy.reduce(sums, reduce_op="sum")
    return total.float()


def sample_of_each_class(labels: Tensor, count: int, seed: int) -> Tensor:
    """Indices, int64 [N], of at most ``count`` samples of each class, in random order."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator(device="cpu").manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    sizes = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[by_class]]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[by_class[rank < count]] = True
    return shuffled[chosen[shuffled]]
