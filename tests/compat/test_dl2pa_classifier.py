"""The authors' classifier against their formulas in float64, and where it differs on purpose."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastproto import estimate_prototypes
from fastproto.compat.dl2pa import BLoss, LTloss, fixed_Classifier, produce_Ew, save_prototypes
from tests.compat import authors

C, D = 12, 4


@pytest.fixture
def classifier(tmp_path: Path) -> fixed_Classifier:
    torch.manual_seed(1)  # with 0 the class means would begin as the points that the search begins with
    file = save_prototypes(estimate_prototypes(C, D), tmp_path)
    assert file.name == "12centers_4dim.pth"
    return fixed_Classifier(D, C, file, gpu_id=0)


def features(count: int) -> Tensor:
    return 3 * torch.randn(count, D)


def test_steps_without_repeated_labels_equal_theirs(classifier: fixed_Classifier) -> None:
    """Class means, assignment, prototypes, loss, gradient and cosines of six steps, a renewal after every second."""
    queue, columns = classifier.queue.clone(), classifier.P.clone()
    index = None
    for step in range(6):
        x, labels = features(8).requires_grad_(), torch.randperm(C)[:8]
        rows = classifier.polars[:, labels].T
        classifier.forward_momentum(x.detach(), labels)
        queue = authors.moved(queue, x.detach(), labels)
        torch.testing.assert_close(classifier.queue.double(), queue, rtol=1e-5, atol=1e-6)
        loss, theirs = BLoss(nn.CosineSimilarity(eps=1e-9), x, rows), authors.batch_loss(y := x.detach().double(), rows)
        torch.testing.assert_close(loss.double(), theirs, rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(loss, x)
        (expected,) = torch.autograd.grad(authors.batch_loss(y.requires_grad_(), rows), y)
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)
        if step % 2 == 1:
            polars, found = authors.matched(queue, columns)
            index = classifier.update_fixed_center()
            assert index.tolist() == found == classifier.offline_haungarian_idx.tolist()
            torch.testing.assert_close(classifier.polars.double(), polars, rtol=0, atol=1e-6)
        cosines = F.normalize(x.detach().double(), dim=1) @ classifier.polars.double()
        torch.testing.assert_close(classifier.predict(x.detach()).double(), cosines, rtol=0, atol=1e-5)
    assert index is not None and index.tolist() != list(range(C)), "the test should see an assignment"


def test_a_share_of_mixed_features_counts_as_theirs(classifier: fixed_Classifier) -> None:
    x, labels = features(5), torch.randperm(C)[:5]
    expected = authors.moved(classifier.queue, x, labels, 0.3)
    classifier.forward_momentum(x, labels, lam=0.3)
    torch.testing.assert_close(classifier.queue.double(), expected, rtol=1e-5, atol=1e-6)
    before = classifier.queue.clone()
    for share in (0, 1e-16):  # of the second the momentum rounds to 1
        classifier.forward_momentum(x, labels, lam=share)
        torch.testing.assert_close(classifier.queue, before)
    with pytest.raises(ValueError, match=r"lam is 1\.5; expected"):
        classifier.forward_momentum(x, labels, lam=1.5)


def test_of_repeated_labels_all_count_and_not_the_last_alone(classifier: fixed_Classifier) -> None:
    classifier.forward_momentum(features(C), torch.arange(C))
    before, x = classifier.queue.clone(), features(3)
    classifier.forward_momentum(x, torch.tensor([2, 2, 5]))
    z = F.normalize(x, dim=1)
    both = F.normalize(0.95**2 * before[2] + 0.95 * 0.05 * z[0] + 0.05 * z[1], dim=0)
    torch.testing.assert_close(classifier.queue[2], both)
    last = authors.moved(before, x, torch.tensor([2, 2, 5]))
    assert not torch.allclose(classifier.queue[2].double(), last[2], atol=1e-3)
    torch.testing.assert_close(classifier.queue[5].double(), last[5], rtol=0, atol=1e-6)
    untouched = [label for label in range(C) if label not in (2, 5)]
    assert torch.equal(classifier.queue[untouched], before[untouched])


def test_the_loss_of_long_tails_equals_theirs_through_the_normalisation(classifier: fixed_Classifier) -> None:
    x, labels = features(16).requires_grad_(), torch.randint(0, C, (16,))
    scaled = produce_Ew(labels, C) * classifier.polars
    torch.testing.assert_close(produce_Ew(labels, C).double(), authors.weights(labels, C), rtol=1e-6, atol=0)
    loss = LTloss(classifier(x), scaled[:, labels].T)
    (gradient,) = torch.autograd.grad(loss, x)
    double = copy.deepcopy(classifier.BN_H).double()
    y = x.detach().double().requires_grad_()
    theirs = authors.long_tailed_loss(F.normalize(double(y), dim=1), scaled[:, labels].T)
    torch.testing.assert_close(loss.double(), theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), torch.autograd.grad(theirs, y)[0], rtol=1e-3, atol=1e-6)
    assert LTloss(x.detach(), scaled[:, labels].T, reg_lam=0.1) > LTloss(x.detach(), scaled[:, labels].T)
    torch.testing.assert_close(classifier.predictLT(x, scaled), F.normalize(x, dim=1) @ scaled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_of_long_tails_on_raw_features(classifier: fixed_Classifier, dtype: torch.dtype) -> None:
    """Their gradient lies along the prototypes, and also lengthens the features."""
    labels, x = torch.randint(0, C, (16,)), features(16).to(dtype).requires_grad_()
    rows = (produce_Ew(labels, C) * classifier.polars)[:, labels].T
    loss = LTloss(x, rows)
    y = x.detach().double().requires_grad_()
    theirs = authors.long_tailed_loss(y, rows)
    torch.testing.assert_close(loss.double(), theirs, rtol=1e-5, atol=1e-6)
    (gradient,), (expected,) = torch.autograd.grad(loss, x), torch.autograd.grad(theirs, y)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, expected.to(dtype), rtol=2**-7 if dtype == torch.bfloat16 else 1e-4, atol=1e-6)
    assert LTloss(x[:0], rows[:0], reg_lam=0.1) == 0 and LTloss(torch.zeros(1, D), rows[:1]) == 0
    for function in (LTloss, lambda x, rows: BLoss(None, x, rows)):
        with pytest.raises(
            ValueError, match=r"features are \[16, 4\] and their prototypes \[1, 4\]; expected the same"
        ):
            function(x, rows[:1])


def test_targets_of_imagenet_are_one_cosine_for_each_sample(classifier: fixed_Classifier) -> None:
    x, labels = features(6), torch.randint(0, C, (6,))
    rows = classifier.polars[:, labels].T
    assert torch.equal(BLoss(None, x, rows[None]), BLoss(None, x, rows))
    with pytest.raises(TypeError, match="criterion is MSELoss; expected"):
        BLoss(nn.MSELoss(), x, rows)
    assert BLoss(None, x[:0], rows[:0]) == 0


def test_states(classifier: fixed_Classifier) -> None:
    """One's own, a deep copy, and one of theirs, which has neither prototypes nor assignment."""
    classifier.forward_momentum(features(C), torch.arange(C))
    classifier.update_fixed_center()
    other = fixed_Classifier(D, C, None, gpu_id=None, fix_bn=True)
    assert not any(parameter.requires_grad for parameter in other.BN_H.parameters())
    other.load_state_dict(classifier.state_dict())
    for one in (other, copy.deepcopy(classifier)):
        assert torch.equal(one.polars, classifier.polars) and torch.equal(one.queue, classifier.queue)
        one.forward_momentum(features(C), torch.arange(C))
    before = other.polars.clone()
    theirs = {key: value for key, value in classifier.state_dict().items() if key not in ("prototypes", "assignment")}
    other.load_state_dict(theirs)
    assert torch.equal(other.queue, classifier.queue) and torch.equal(other.polars, before)
    for wrong, message in (
        ({"assignment": torch.arange(1, C + 1)}, "assignment run from"),
        ({"assignment": torch.zeros(C, dtype=torch.int64)}, "assignment names a row more than once"),
        ({"prototypes": 2 * classifier.prototypes}, "prototypes row 0 has norm 2; expected unit rows"),
        ({"prototypes": classifier.prototypes[1:]}, r"prototypes are \[11, 4\]; expected \[12, 4\]"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(theirs | wrong)


def test_the_prototypes_that_were_given_stay_as_they_are() -> None:
    given, other = estimate_prototypes(C, D), fixed_Classifier(D, C, None)
    before = given.vectors.clone()
    for passed in (given, given.vectors):
        own = fixed_Classifier(D, C, passed)
        assert torch.equal(own.prototypes, before)
        own.load_state_dict(other.state_dict() | {"prototypes": -before})
        assert torch.equal(given.vectors, before) and torch.equal(own.prototypes, -before)


def test_arrays_that_are_returned_are_copies(classifier: fixed_Classifier) -> None:
    before, polars = classifier.assignment.clone(), classifier.polars.clone()
    for index in (classifier.haungarian()[1], classifier.update_fixed_center()):
        index[:] = 0
        assert torch.equal(classifier.assignment, before) and torch.equal(classifier.polars, polars)
        assert classifier.offline_haungarian_idx is not None and sorted(classifier.offline_haungarian_idx) == [
            *range(C)
        ]


def test_polars_follow_writes_and_can_be_set(classifier: fixed_Classifier) -> None:
    before = classifier.polars.clone()
    classifier.assignment.copy_(classifier.assignment.roll(1))
    assert torch.equal(classifier.polars, before.roll(1, dims=1))
    classifier.prototypes.neg_()
    assert torch.equal(classifier.polars, -before.roll(1, dims=1))
    classifier.polars = 3 * before
    torch.testing.assert_close(classifier.polars, before)
    assert classifier.assignment.tolist() == [*range(C)]
    with pytest.raises(ValueError, match=r"prototypes are \[11, 4\]; expected \[12, 4\]"):
        classifier.polars = before[:, 1:]
    with pytest.raises(ValueError, match="prototypes row 0 has norm 0; expected unit rows"):
        classifier.polars = torch.zeros(D, C)
    torch.testing.assert_close(classifier.polars, before)
    classifier.update_fixed_center()
    assert classifier.assignment.tolist() == authors.matched(F.normalize(classifier.queue, dim=1), before)[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_named_gpu_is_the_cpu_where_there_is_none() -> None:
    assert fixed_Classifier(D, C, None, gpu_id="cuda:0").queue.device.type == "cpu"


def test_prototypes_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prototypes are \[12, 4\]; expected \[10, 4\]"):
        fixed_Classifier(D, 10, save_prototypes(estimate_prototypes(C, D), tmp_path))
    with pytest.raises(FileNotFoundError, match="no prototype file"):
        fixed_Classifier(D, C, tmp_path / "none.pth")
