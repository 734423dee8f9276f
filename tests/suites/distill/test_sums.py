"""The sum of small scan networks may end anywhere; each learns what those before it leave; shares are those claimed."""

import pytest
import torch
from torch import nn

from bench.errors import UsageError
from suites.common.training import divergence
from suites.distill.mamba_pkd import STUDENTS, boosting_loss, mamba_pkd, mamba_teacher, share

SMALL = {"width": 8, "depth": 1, "patch": 8, "resolution": 16}


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seven():
    torch.manual_seed(0)
    return mamba_pkd(mamba_teacher(**SMALL))


@torch.inference_mode()
def test_all_seven_are_the_sum_of_logits_computed_apart(images):
    whole = seven()
    apart = [student(images) for student in whole.students]
    assert len(apart) == len(STUDENTS) == 7
    assert torch.allclose(whole(images), torch.stack(apart).sum(0), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_prefix_holds_the_first_students_and_no_others(images, count):
    torch.manual_seed(0)
    prefix, whole = mamba_pkd(mamba_teacher(**SMALL), students=count), seven()
    assert len(prefix.students) == count
    with torch.inference_mode():
        apart = [student(images) for student in whole.students[:count]]
        assert torch.allclose(prefix(images), torch.stack(apart).sum(0), atol=1e-6)


def test_the_first_alone_is_a_plain_network(images):
    torch.manual_seed(0)
    prefix = mamba_pkd(mamba_teacher(**SMALL), students=1)
    with torch.inference_mode():
        assert torch.equal(prefix(images), prefix.students[0](images))


def test_a_student_learns_from_its_own_sum_alone():
    parts = [torch.randn(4, 10, requires_grad=True) for _ in range(3)]
    labels, teacher = torch.arange(4), torch.randn(4, 10)
    boosting_loss(parts, labels, teacher, 0.25).backward()
    for place, part in enumerate(parts):
        before = sum((p.detach() for p in parts[:place]), torch.zeros(4, 10))
        own = part.detach().clone().requires_grad_()
        said = before + own
        (0.25 * nn.functional.cross_entropy(said, labels) + 0.75 * divergence(said, teacher)).backward()
        assert torch.allclose(part.grad, own.grad, atol=1e-7)


def test_the_weakest_has_a_hundredth_and_all_seven_have_the_claimed_share_of_the_teachers_products():
    shares = [share(count) for count in range(1, 8)]
    assert round(shares[0], 2) == 0.01
    assert round(shares[-1], 2) == 0.63
    assert shares == sorted(shares)


@pytest.mark.parametrize("count", [0, 8])
def test_there_are_seven_students_and_no_share_of_others(count):
    with pytest.raises(ValueError, match="take 1 to 7"):
        share(count)


def test_another_teacher_is_refused():
    with pytest.raises(UsageError, match="mamba_teacher"):
        mamba_pkd(nn.Linear(1, 1))
