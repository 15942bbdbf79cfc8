"""The methods of the tables, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """Settings of fastproto-train.

    Args:
        settings: by their keys.
        cross_entropy: whether the loss is a cross-entropy, which has a learning rate of its own under SGD.
        halved: whether the loss is half of (1 - cos)², or has half of its gradient at cos = 0: its rate is then twice.
        trained_by: the method whose run it begins from.
        words: whether it needs word vectors.
    """

    settings: dict[str, str]
    cross_entropy: bool = False
    halved: bool = False
    trained_by: str | None = None
    words: bool = False


def _head(name: str, initial_assignment: str | None = None) -> dict[str, str]:
    chosen = {} if initial_assignment is None else {"head.initial_assignment": initial_assignment}
    return {"head.name": name, **chosen}


def _power(name: str, power: str) -> dict[str, str]:
    return {**_head(name, "aligned"), "head.loss": "power", "head.power": power}


def _softmax_norm(name: str) -> dict[str, str]:
    return {**_head(name, "aligned"), "head.loss": "softmax", "head.scale": "norm"}


AUTHORS_SGD = {"optim.name": "sgd", "optim.lr": "0.01", "optim.nesterov": "false", "optim.weight_decay": "1e-4"}
"""For a sum over the batch; momentum 0.9, the default."""
OFFICIAL = {"head.loss": "official", "head.reduction": "sum", "head.means": "official", **AUTHORS_SGD}

METHODS = {
    "dynamic": Method(_head("prototype", "random")),
    "dynamic-official": Method(_head("prototype", "random") | OFFICIAL),
    "dynamic-aligned": Method(_head("prototype", "aligned")),
    "dynamic-power-auto": Method(_power("prototype", "auto"), halved=True),
    "dynamic-from-psc": Method(_head("trained"), trained_by="psc"),
    "psc": Method(_head("softmax"), cross_entropy=True),
    "psc-uniform": Method(_head("softmax_uniform"), cross_entropy=True),
    "linear": Method(_head("linear"), cross_entropy=True),
    "fixed": Method(_head("fixed", "random")),
    "fixed-aligned": Method(_head("fixed", "aligned")),
    "fixed-softmax": Method(_head("fixed_softmax"), cross_entropy=True),
    "power-3": Method(_power("prototype", "3"), halved=True),
    "power-1.5": Method(_power("prototype", "1.5"), halved=True),
    "power-1": Method(_power("prototype", "1"), halved=True),
    "power-0.5": Method(_power("prototype", "0.5"), halved=True),
    "softmax-norm": Method(_softmax_norm("prototype"), cross_entropy=True),
    "fixed-power-1": Method(_power("fixed", "1"), halved=True),
    "fixed-power-0.5": Method(_power("fixed", "0.5"), halved=True),
    "fixed-softmax-norm": Method(_softmax_norm("fixed"), cross_entropy=True),
    "etf": Method(_head("etf"), halved=True),
    "hpn": Method(_head("hpn")),
    "word2vec": Method(_head("hpn"), words=True),
}
