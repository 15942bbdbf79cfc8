"""The heads that the prototype head is compared with, each with the same interface."""

from fastproto.baselines.base import CosineHead
from fastproto.baselines.etf import ETFHead
from fastproto.baselines.fixed import FixedHead
from fastproto.baselines.fixed_softmax import FixedSoftmaxHead
from fastproto.baselines.hpn import HPNHead, semantic_prototypes
from fastproto.baselines.linear import LinearHead
from fastproto.baselines.softmax import SoftmaxHead
from fastproto.baselines.softmax_uniform import SoftmaxUniformHead
from fastproto.baselines.trained import TrainedPrototypesHead

__all__ = [
    "CosineHead",
    "ETFHead",
    "FixedHead",
    "FixedSoftmaxHead",
    "HPNHead",
    "LinearHead",
    "SoftmaxHead",
    "SoftmaxUniformHead",
    "TrainedPrototypesHead",
    "semantic_prototypes",
]
