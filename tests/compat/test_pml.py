"""The loss for PyTorch Metric Learning, with its reducers, regularisers, trainers and testers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto import PrototypeHead
from lib.integrations.digits import Budget, digits, head, mlp
from lib.integrations.trainings import pml

pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")

from pytorch_metric_learning import distances, losses, miners, reducers, regularizers, testers
from pytorch_metric_learning.utils import loss_and_miner_utils
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

from fastproto.compat.pml import PrototypeLoss

C, D = 6, 4
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def loss(*args: Any, **options: Any) -> PrototypeLoss:
    return PrototypeLoss(C, D, *args, **options)


def batch(count: int = 8, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(count, D).to(dtype).requires_grad_(), torch.arange(count) % C


def each(own: PrototypeLoss, embeddings: Tensor, labels: Tensor) -> Tensor:
    """½(1 - cos)² in float64."""
    cos = (F.normalize(embeddings.double(), dim=1) * own.head.weight_by_label()[labels].double()).sum(1)
    return 0.5 * (1 - cos).square()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    embeddings, labels = batch(dtype=dtype)
    own = loss()
    found = own(embeddings, labels)
    torch.testing.assert_close(found.double(), each(own, embeddings, labels).mean(), rtol=1e-5, atol=1e-6)
    found.backward()
    assert embeddings.grad is not None and embeddings.grad.dtype == dtype and embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU)])
def test_the_loss_follows_the_embeddings_to_their_device(device: str) -> None:
    embeddings, labels = batch()
    own = loss()
    found = own(embeddings.to(device), labels)
    assert found.device.type == own.head.prototypes.device.type == device


def test_empty_and_one_sample_batches() -> None:
    own = loss()
    embeddings, labels = batch(0)
    found = own(embeddings, labels)
    found.backward()
    assert found == 0 and embeddings.grad is not None and embeddings.grad.shape == (0, D) and own.head.updates == 0
    embeddings, labels = batch(1)
    torch.testing.assert_close(own(embeddings, labels).double(), each(own, embeddings, labels)[0])
    assert own.head.updates == 1


REDUCERS: dict[str, tuple[Any, Any]] = {
    "mean": (reducers.MeanReducer(), lambda x, y: x.mean()),
    "none": (reducers.DoNothingReducer(), lambda x, y: x),
    "sum": (reducers.SumReducer(), lambda x, y: x.sum()),
    "non-zero": (reducers.AvgNonZeroReducer(), lambda x, y: x[x > 0].mean()),
    "threshold": (reducers.ThresholdReducer(low=0.3), lambda x, y: x[x > 0.3].mean()),
    "classes": (reducers.ClassWeightedReducer(torch.arange(1.0, C + 1)), lambda x, y: (x * (y + 1)).mean()),
}


@pytest.mark.parametrize("name", REDUCERS)
def test_reducers(name: str) -> None:
    reducer, expected = REDUCERS[name]
    own = loss(reducer=reducer)
    embeddings, labels = batch(24)
    found = own(embeddings, labels)
    if name == "none":
        found = found["loss"]["losses"]
    wanted = expected(each(own, embeddings, labels), labels)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert embeddings.grad is not None and embeddings.grad.isfinite().all()


def test_several_reducers_and_a_regulariser_of_the_embeddings() -> None:
    embeddings, labels = batch()
    options = {"embedding_regularizer": regularizers.LpRegularizer(), "embedding_reg_weight": 0.5}
    own = loss(reducer=reducers.MultipleReducers({"loss": reducers.SumReducer()}), **options)
    norms = embeddings.detach().double().norm(dim=1)
    expected = each(own, embeddings, labels).sum() + 0.5 * norms.mean()
    torch.testing.assert_close(own(embeddings, labels).double(), expected, rtol=1e-5, atol=1e-6)
    assert own.sub_loss_names() == ["loss", "embedding_reg_loss"]


def test_collectors_of_losses_take_it() -> None:
    embeddings, labels = batch()
    own = loss()
    several = losses.MultipleLosses([own, losses.IntraPairVarianceLoss()], weights=[2, 0])
    torch.testing.assert_close(several(embeddings, labels), 2 * own.eval()(embeddings, labels))


def test_what_makes_no_sense_is_refused() -> None:
    embeddings, labels = batch(12)
    own = loss()
    with pytest.raises(ValueError, match="indices_tuple was given; expected none: each sample is pulled"):
        own(embeddings, labels, miners.MultiSimilarityMiner()(embeddings, labels))
    with pytest.raises(ValueError, match="leave out the miner, or DistributedLossWrapper"):
        own(embeddings, labels, loss_and_miner_utils.get_all_pairs_indices(labels), embeddings.clone(), labels)
    with pytest.raises(ValueError, match="ref_emb was given; expected none"):
        own(embeddings, labels, ref_emb=embeddings.clone(), ref_labels=labels)
    with pytest.raises(ValueError, match="labels are missing"):
        own(embeddings)
    with pytest.raises(ValueError, match="distance is LpDistance; expected CosineSimilarity"):
        loss(distance=distances.LpDistance())
    with pytest.raises(ValueError, match="weight_regularizer was given; expected none: prototypes are fixed"):
        loss(weight_regularizer=regularizers.LpRegularizer())
    with pytest.raises(ValueError, match="renew_every is 0; expected at least 1 call"):
        loss(0)
    with pytest.raises(ValueError, match=r"renew_every is 2\.5; expected an integer"):
        loss(2.5)
    assert own.head.updates == 0


def test_renewals_every_few_calls_in_training_also_after_a_resume() -> None:
    one, other = loss(3), loss(3)
    resumed = loss(3)
    for step in range(8):
        embeddings, labels = batch(5 if step != 1 else 0)  # an empty batch is no update
        for own in (one, other):
            own(embeddings, labels)
        one.eval()(embeddings, labels)  # counts for nothing
        one.train()
        if step == 3:
            resumed.load_state_dict(one.state_dict())
        if step > 3:
            resumed(embeddings, labels)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) and torch.equal(value, resumed.state_dict()[name]), name
    assert not torch.equal(one.head.assignment, PrototypeHead(C, D).assignment)


def test_renewal_by_a_call() -> None:
    own = loss()
    assert torch.equal(own.renew().permutation, own.head.assignment)
    embeddings, _ = batch()
    assert torch.equal(own.get_logits(embeddings), own.head.logits(embeddings))
    assert not list(own.parameters())


def test_the_power_that_suits_the_prototypes() -> None:
    assert (
        loss(loss="power", power="auto").head.form.power == PrototypeHead(C, D, loss="power", power="auto").form.power
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of others
def test_its_tester_takes_a_backbone_trained_with_it(tmp_path: Path) -> None:
    """Nearest neighbours by cosines, without faiss."""
    model = mlp()
    before = precision(model)
    pml(model, head(), Budget(epochs=3, lr=1e-2), tmp_path)
    assert precision(model) > 0.9 > before


def precision(model: nn.Module) -> float:
    """Of the nearest neighbour among the test part."""
    knn = CustomKNN(distances.CosineSimilarity())
    calculator = AccuracyCalculator(include=("precision_at_1",), k=1, knn_func=knn)
    tester = testers.GlobalEmbeddingSpaceTester(
        accuracy_calculator=calculator, dataloader_num_workers=0, data_device=torch.device("cpu")
    )
    images, labels = digits()[2:]
    found = tester.test({"val": torch.utils.data.TensorDataset(images, labels)}, 1, model)
    return float(found["val"]["precision_at_1_level0"])
