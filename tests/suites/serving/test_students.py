"""BottleFit, the Entropic Student and their baselines at the smallest size: identities, oracles, training, payloads."""

import pytest
import torch

from bench.errors import UsageError
from suites.common.tasks.digits import Digits, Training
from suites.serving import split_forms as forms
from suites.serving.backbones import as_backbone, split_backbone, split_digits
from suites.serving.bottlefit import bottlefit
from suites.serving.entropic import entropic
from suites.serving.imitation import bottlefit_step
from suites.serving.jpeg_curve import coarsest
from suites.serving.two_stage import second_stage, squared, stage
from suites.serving.whole import local, longer, offload, offload_raw, plain
from tests.suites.serving.cutting import built, counts, facts, parts_of, small

pytest.importorskip("constriction")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network of a second's training, with its task."""
    task = Digits(tmp_path_factory.mktemp("digits"), 0, training=Training(steps=60, grown_steps=10, rate=4e-3))

    def build():
        return small(width=8)

    task.prepare("split_digits", build)

    def loaded():
        module = build()
        task.load(module, "split_digits")
        return module

    return loaded


# ---------------------------------------------------------------- baselines
@pytest.mark.parametrize("cut", ["block1", "block3", "block6"])
def test_a_plain_cut_in_floats_is_the_network(cut):
    module = small()
    (images,) = module.example_inputs(3)
    assert torch.equal(plain(module, cut=cut)(images), module(images))


def test_a_raw_picture_is_the_network_on_its_pixels():
    module = small()
    (images,) = module.example_inputs(3)
    assert (offload_raw(module)(images) - module(images)).abs().max() < 1e-2
    assert torch.equal(local(module)(images), module(images))


def test_a_local_network_sends_nothing_and_has_no_server():
    found = facts(built(small()))
    assert found["payload_bytes", "request"].value == 0 == found["answer_bytes", "request"].value
    assert set(parts_of(built(small()))) == {"request", "head"}


def test_a_picture_file_is_smaller_and_says_what_it_is_compared_with():
    found = facts(built(offload(small(), q=50)))
    size = found["payload_bytes", "request"].value
    assert (
        found["vs_u8_input", "request"].value == pytest.approx(2 * 1024 / size)
        and found["head_params", "request"].value == 0
    )


def test_an_unknown_stage_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="block3"):
        plain(small(), cut="blok3")
    with pytest.raises(ValueError, match="nothing is left"):
        plain(small(), cut="answer")


# ---------------------------------------------------------------- students
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("resolution", [32, 64])
def test_bottlefit_is_its_closed_form(version, resolution):
    make = lambda: bottlefit(small(resolution=resolution), b=3, version=version)  # noqa: E731
    found, student = counts(make), make()
    head = forms.bottlefit_head(3, version, resolution, channels=1, stem=16, inner=16)
    tail = forms.bottlefit_decoder(head, version, [16] * 4, stem=16)
    assert found["head"] == head.macs and student.device_params() == head.params
    assert student.head(*student.example_inputs(1)).numel() == head.elements
    own = 2 * (16 * 9 * 16 * (resolution // 8) ** 2) + 160
    assert found["tail"] == tail.macs + own and (tail.channels, tail.side) == (16, resolution // 8)


@pytest.mark.parametrize("bits", [1, 3, 7, 8, 12])
def test_codes_are_made_after_training_and_are_what_the_strings_give(bits):
    student = bottlefit(small(), b=2, bits=bits)
    (images,) = student.example_inputs(4)
    # 4 x 2 x 5 x 5 codes without gaps, scale and zero point of four samples, a shape of four sides
    assert len(student.encode(student.head(images))) == -(-bits * 200 // 8) + 4 * 6 + 9
    through = student.tail(student.decode(student.encode(student.head(images))))
    assert torch.equal(student(images), through)
    floats = bottlefit(small(), b=2)
    assert torch.equal(floats(images), floats.plain(images))
    for make in (bottlefit, plain):
        with pytest.raises(ValueError, match="1 to 16 bits"):
            make(small(), bits=24, **({"cut": "block2"} if make is plain else {}))


def test_the_entropic_student_through_strings_is_that_with_rounding():
    for given in (entropic(small(), channels=3), entropic(small(), channels=3, hyper=4)):
        (images,) = given.example_inputs(3)
        latent = given.head(images)
        assert torch.equal(given.decode(given.encode(latent)), latent.round())
        assert torch.equal(given.tail(given.decode(given.encode(latent))), given(images))


def test_both_sides_of_a_hyper_prior_are_counted():
    plain_one, second = (counts(lambda n=n: entropic(small(), channels=3, hyper=n)) for n in (0, 4))
    student = entropic(small(), channels=3, hyper=4)
    latent = student.head(*student.example_inputs(1))
    assert second["head"] == plain_one["head"] and second["request"] > plain_one["request"]
    assert latent.shape[-1] == 7


def test_a_network_without_known_stages_or_of_a_size_that_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="no stages that are known"):
        as_backbone(torch.nn.Linear(2, 2))
    with pytest.raises(UsageError):
        split_backbone(name="resnet17")
    with pytest.raises(ValueError, match="take another version"):
        bottlefit_step(split_digits(width=4, resolution=56), version=3)
    with pytest.raises(ValueError, match="multiple of 8"):
        split_digits(resolution=30)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "regnety_002"])
def test_named_stages_are_the_network_of_the_library(name):
    from suites.common.timm_bridge import timm_model
    from suites.common.torchvision_models import torchvision_model

    torch.manual_seed(0)
    library = timm_model(name=name) if name.startswith("regnet") else torchvision_model(name=name)[0]
    library.resolution = 64
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(as_backbone(library)(images), library(images))


# ---------------------------------------------------------------- training
def test_students_learn_from_the_teacher_and_small_payloads_are_compared_with_files(teacher):
    whole = teacher()
    student = bottlefit(whole, b=4, bits=8, epochs=1)
    subject = built(student, next(iter(whole.task.batches(8)))[0], whole.task)
    found = facts(subject)
    assert student.learned["method"] == "bottlefit" and student.method_cost["samples"] == 2 * 1 * 75 * 16
    assert found["vs_fp32_cut", "request"].value > 1 and found["payload_elements", "request"].value == 8 * 4 * 25
    assert found["vs_jpeg_equal_accuracy", "request"].method_note
    codes = bottlefit(teacher(), b=4, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(codes.parameters(), student.parameters(), strict=True))


@pytest.mark.slow
def test_a_dearer_bit_is_a_shorter_string_and_a_cheap_one_comes_nearer_to_the_teacher(teacher):
    sizes, apart = [], []
    for beta in (0.01, 10.0):
        whole = teacher()
        student = entropic(whole, beta=beta, epochs=2)
        (images, _) = next(iter(student.task.batches(16)))
        sizes.append(len(student.encode(student.head(images))))
        with torch.no_grad():
            found, wanted = student.maps(student.head(images).round()), whole.maps(images, student.imitated)
            apart.append(float(squared(found, wanted)))
    assert sizes[1] < 0.7 * sizes[0] and apart[0] < apart[1]


@pytest.mark.slow
def test_what_is_frozen_in_the_second_stage_stays(teacher):
    free, frozen = (bottlefit(teacher(), b=2, epochs=1, fe=fe) for fe in (False, True))
    assert not torch.equal(free.encoder[0].weight, frozen.encoder[0].weight)


@pytest.mark.slow
def test_the_control_learns_as_long(teacher):
    assert longer(teacher(), epochs=1).learned["steps"] == 150 == bottlefit(teacher(), b=1, epochs=1).learned["steps"]


def test_rates_fall_where_they_should():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    seen = []
    batches = ((torch.zeros(1), torch.zeros(1)) for _ in range(99))

    def loss(inputs, labels):
        seen.append(optimizer.param_groups[0]["lr"])
        return (weight - 1).square().sum()

    stage(optimizer, batches, loss, 10, [0.5, 0.8])
    assert seen == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_distillation_is_half_of_each():
    torch.manual_seed(0)
    student, teacher = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    images, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])
    own, wanted = student(images).log_softmax(-1), teacher(images).log_softmax(-1)
    hard = -own[range(5), labels].mean()
    soft = (wanted.exp() * (wanted - own)).sum(-1).mean()
    assert second_stage(student, teacher, "kd")(images, labels).item() == pytest.approx(
        (0.5 * hard + 0.5 * soft).item()
    )
    assert second_stage(student, teacher, "ft")(images, labels).item() == pytest.approx(hard.item())


def test_the_coarsest_file_of_equal_accuracy():
    curve = [[100.0, 40.0], [150.0, 80.0], [300.0, 95.0]]
    assert coarsest(curve, 60.0) == 150.0 and coarsest(curve, 80.0) == 150.0
    assert "no JPEG quality reaches" in coarsest(curve, 99.0) and "at least as accurate" in coarsest(curve, 30.0)


def test_a_step_of_imitation_trains_encoder_and_decoder_alone():
    step = bottlefit_step(small(), b=2).train()
    (images,) = step.example_inputs(4)
    kept = {name: value.clone() for name, value in step.state_dict().items()}
    optimizer = step.make_optimizer()
    before = step.loss(step(images), step.example_targets(4, 0))
    before.backward()
    optimizer.step()
    moved = {name for name, value in step.state_dict().items() if not torch.equal(value, kept[name])}
    assert moved and all(name.startswith(("student.encoder", "student.decoder")) for name in moved)
    assert float(step(images)) < float(before)
