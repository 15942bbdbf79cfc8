"""Each integration trains the handwritten digits with the real package, and its renewals are at work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lib.integrations.digits import Budget, D, accuracy, head, plain_loop, trained_mlp
from lib.integrations.trainings import TRAININGS

REACHED = 0.8  # with renewals 0.86; without them 0.11


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
@pytest.mark.parametrize("name", TRAININGS)
def test_digits_are_learned(name: str, tmp_path: Path) -> None:
    package, training = TRAININGS[name]
    pytest.importorskip(package)
    model, own = trained_mlp(), head(1)
    training(model, own, Budget(), tmp_path)
    assert accuracy(model, own) > REACHED


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # of others
@pytest.mark.parametrize("name", ["lightning", "lightning_manual", "accelerate"])
def test_steps_and_renewals_are_those_of_the_plain_loop(name: str, tmp_path: Path) -> None:
    """To the last bit: each renews before the same batches."""
    package, training = TRAININGS[name]
    pytest.importorskip(package)
    states = []
    for train in (TRAININGS["plain"][1], training):
        model, own = trained_mlp(), head(1)
        train(model, own, Budget(epochs=2, per_epoch=1), tmp_path)
        states.append(model.state_dict() | own.state_dict())
    assert not torch.equal(states[0]["assignment"], head(1).assignment)
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_without_renewals_they_are_not() -> None:
    model, own = trained_mlp(), head(1)
    plain_loop(model, own, Budget(), renewed=False)
    assert accuracy(model, own) < REACHED / 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of timm's imports
def test_a_network_of_timm_without_its_classifier() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", in_chans=1)
    network.reset_classifier(0)
    model = nn.Sequential(nn.Upsample(scale_factor=2), network, nn.Linear(network.num_features, D))
    own = head()
    plain_loop(model, own, Budget(epochs=3, lr=1e-2))
    assert accuracy(model, own) > REACHED
