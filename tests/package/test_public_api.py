"""The public names and signatures, so that none changes unnoticed."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import fastproto
from fastproto import assignment, functional, head, prototypes
from fastproto.training import fit

SIGNATURES = {
    prototypes.estimate_prototypes: (
        "num_classes dim * objective t method effort seed device max_passes time_limit progress cache "
        "precision form subset_size lr iterations trace"
    ),
    prototypes.measure_prototypes: "vectors t",
    prototypes.load_prototypes: "path * t device",
    functional.gaussian_potential: "points others * t self_index weights precision",
    functional.uniformity_loss: "prototypes * t subset form precision",
    functional.ipm_loss: "features labels prototypes assignment * power weight reduction loss nan_policy",
    functional.update_class_means_: "means features labels momentum * nan_policy",
    functional.update_class_means: "means features labels momentum * nan_policy",
    functional.nearest_prototypes: "features prototypes k",
    assignment.assign: "class_means prototypes * previous method tolerance time_limit progress",
    assignment.solve: "cost * previous method tolerance time_limit progress",
    assignment.linear_sum_assignment: "cost_matrix maximize",
    assignment.align: "class_means prototypes * starts seed time_limit",
    head.PrototypeHead: (
        "num_classes dim * prototypes momentum loss power scale means reduction sync_class_means seed nan_policy effort"
    ),
    head.PrototypeHead.forward: "self features labels weight * labels2 lam weight2 update_means",
    head.PrototypeHead.logits: "self features",
    head.PrototypeHead.predict: "self features k",
    head.PrototypeHead.weight_by_label: "self",
    head.PrototypeHead.reassign: "self * class_means",
    head.PrototypeHead.align: "self * starts seed class_means time_limit",
    head.PrototypeHead.begin_renewal: "self * aligned starts seed",
    head.PrototypeHead.finish_renewal: "self renewal * wait adopt",
    fit: "config * classes",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__qualname__)
def test_signature(function: Any) -> None:
    names, keyword_only = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            names.append("*")
        names.append(parameter.name)
    assert " ".join(names) == SIGNATURES[function]
    assert inspect.getdoc(function)


def test_every_public_name_exists() -> None:
    assert dir(fastproto) == fastproto.__all__ == sorted(fastproto.__all__)
    for name in fastproto.__all__:
        assert getattr(fastproto, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastproto.nothing  # type: ignore[attr-defined]


def test_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert version("fastproto") == fastproto.__version__
