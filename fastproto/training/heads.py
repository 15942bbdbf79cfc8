"""The heads that ``--head`` can name; :mod:`fastproto.training.build_head` builds them.

To add one, write its class in :mod:`fastproto.baselines` and add its name and its entry in HEADS here. This module
imports neither torch nor Lightning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HeadName = Literal[
    "prototype", "fixed", "softmax", "softmax_uniform", "linear", "fixed_softmax", "etf", "hpn", "trained"
]


@dataclass(frozen=True)
class HeadKind:
    """How a head is made: ``made_by(num_classes, dim, **options)`` with the options that ``takes`` lists.

    An option is a setting of HeadConfig, the seed of the run, or the content of a file (see FILES).
    """

    made_by: str
    takes: tuple[str, ...]
    renewed: bool = False  # whether its assignment is renewed during training


PROTOTYPES = ("prototypes", "effort")  # of heads that estimate prototypes where no file is given
# Of heads with class means.
CLASS_MEANS = ("momentum", "loss", "power", "scale", "means", "reduction", "sync_class_means", "seed")

HEADS: dict[HeadName, HeadKind] = {
    "prototype": HeadKind("fastproto.head:PrototypeHead", (*PROTOTYPES, *CLASS_MEANS), renewed=True),
    "fixed": HeadKind("fastproto.baselines:FixedHead", (*PROTOTYPES, *CLASS_MEANS)),
    "trained": HeadKind("fastproto.baselines:TrainedPrototypesHead", ("weights", *CLASS_MEANS), renewed=True),
    "softmax": HeadKind("fastproto.baselines:SoftmaxHead", ("scale", "reduction")),
    "softmax_uniform": HeadKind("fastproto.baselines:SoftmaxUniformHead", ("uniformity_weight", "scale", "reduction")),
    "linear": HeadKind("fastproto.baselines:LinearHead", ("reduction",)),
    "fixed_softmax": HeadKind("fastproto.baselines:FixedSoftmaxHead", (*PROTOTYPES, "scale", "reduction", "seed")),
    "etf": HeadKind("fastproto.baselines:ETFHead", ("reduction", "seed")),
    "hpn": HeadKind("fastproto.baselines:HPNHead", (*PROTOTYPES, "word_vectors", "reduction", "seed")),
}
# Each setting that names a file, and the option that the content of the file fills.
FILES = {"prototypes": "prototypes", "words": "word_vectors", "trained": "weights"}


def heads_that_take(option: str) -> tuple[HeadName, ...]:
    return tuple(name for name, kind in HEADS.items() if option in kind.takes)
