"""The cuts of the papers at their sizes, to the digit: parameters, products, payloads."""

import pytest
import torch

from bench.meters import macs
from bench.workloads.counting import counter
from suites.serving import split_forms as forms
from suites.serving.backbones import split_digits
from suites.serving.bottlefit import bottlefit
from suites.serving.detector import detector_frontend, detector_readout
from suites.serving.ed_vit import ed_vit, pruned_vit
from suites.serving.entropic import entropic
from suites.serving.placement import widest
from suites.serving.split_vit import macs_of, params_of, size_mib, split_vit
from suites.serving.whole import plain
from tests.suites.serving.cutting import SPLIT, counts, network, on_meta, parts_of


def elements(subject):
    part = parts_of(subject)["head"]
    return part.call()[0].numel()


@pytest.mark.parametrize(
    "b, params, head, payload",
    [(3, 10_432, 118_659_840, 2_523), (9, 11_968, 119_951_616, 7_569), (12, 12_736, 120_597_504, 10_092)],
)
def test_bottlefit_of_resnet152_in_closed_form(b, params, head, payload):
    half = forms.bottlefit_head(b, 2, 224)
    assert (half.params, half.macs, half.elements) == (params, head, payload)


def test_bottlefit_of_resnet152_is_counted_so():
    subject = on_meta(lambda: bottlefit(network("resnet152")(), b=12))
    found = counts(lambda: bottlefit(network("resnet152")(), b=12))
    assert subject.module.device_params() == 12_736 and elements(subject) == 10_092
    assert found["head"] == 120_597_504 and found["request"] == 11_802_569_728
    decoder = forms.bottlefit_decoder(forms.bottlefit_head(12, 2, 224), 2)
    assert decoder.macs == 2_855_370_752 and found["tail"] == found["request"] - found["head"]


def test_the_first_convolution_is_the_paper_s_at_any_resolution():
    # 96 px: 7 x 7 of 64 on 48 x 48, 3 x 64 x 49 x 2304, and 2 x 2 to 3 on 13 x 13 (24 / 2 + 1), 4 x 64 x 3 x 169
    subject, found = (use(lambda: bottlefit(network("resnet50", 96)(), b=3)) for use in (on_meta, counts))
    assert subject.module.device_params() == 10_432 and elements(subject) == 3 * 13 * 13
    assert found["head"] == 3 * 64 * 49 * 2304 + 4 * 64 * 3 * 169 == 21_805_824
    # digits keep their own 16 channels at any resolution: 49 x 16, two norms, 4 x 16 x 3
    large = on_meta(lambda: bottlefit(split_digits(resolution=128), b=3))
    assert large.module.device_params() == 49 * 16 + 2 * 2 * 16 + 4 * 16 * 3


@pytest.mark.parametrize("resolution, side", [(225, 29), (300, 38), (331, 42)])
def test_a_picture_of_odd_maps_has_its_payload_though_nothing_is_learned_from_it(resolution, side):
    """Halved twice, rounding up (57, 75 and 83 a side), then by a 2 x 2 convolution with a padding of 1."""
    subject = on_meta(lambda: bottlefit(network("resnet50", resolution)(), b=9))
    middle = (resolution + 3) // 4
    assert elements(subject) == 9 * side**2 == 9 * (middle // 2 + 1) ** 2
    head = forms.bottlefit_head(9, 2, resolution)
    assert parts_of(subject)["tail"].run().shape == (1, 1000) and head.elements == 9 * side**2


@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d"])
def test_wide_and_grouped_resnets_are_torchvision_s_as_well(name):
    module = on_meta(network(name)).module
    assert module.names == ["stem", "layer1", "layer2", "layer3", "layer4", "answer"]
    assert module.shape_after("layer2") == (512, 28, 28)
    assert on_meta(lambda: bottlefit(network(name)(), b=9)).module.device_params() == 11_968


def decoder_macs(make):
    subject = on_meta(make)
    shape = SPLIT.WORKLOAD.shape({})
    found = SPLIT.counts(subject, shape, SPLIT.make_parts(subject, shape), counter(subject.module, macs.count))
    return {item.metric: item.value for item in found.readings}


def test_the_decoder_is_told_apart_from_the_teacher_s_stages():
    assert decoder_macs(lambda: bottlefit(network("resnet152")(), b=12)) == {"decoder_macs": 2_855_370_752}
    assert decoder_macs(lambda: entropic(network("resnet50")())) == {"decoder_macs": 3_582_525_440}
    assert decoder_macs(lambda: plain(network("resnet50")())) == decoder_macs(network("resnet50")) == {}


def test_version_3_of_resnet152_and_the_plain_network():
    third = lambda: bottlefit(network("resnet152")(), b=12, version=3)  # noqa: E731
    subject, found = on_meta(third), counts(third)
    assert subject.module.device_params() == 166_336 and elements(subject) == 2_700
    assert found["head"] == 233_775_104 and found["request"] == 11_899_158_528
    assert counts(network("resnet152"))["request"] == 11_513_626_624


@pytest.mark.parametrize("name", ["densenet169", "densenet201"])
def test_densenets_are_cut_after_the_second_transition(name):
    subject = on_meta(lambda: bottlefit(network(name)(), b=3))
    assert elements(subject) == 2_523 and subject.module.device_params() == 10_432
    mapped = subject.module.decoder(subject.module.encoder(subject.args[0]))
    assert tuple(mapped.shape[1:]) == (256, 14, 14)


def test_the_entropic_student_of_resnet50():
    subject, found = on_meta(lambda: entropic(network("resnet50")())), counts(lambda: entropic(network("resnet50")()))
    student = subject.module
    assert student.device_params() == 138_672 and elements(subject) == 72_600
    assert sum(p.numel() for p in student.codec.parameters()) == 1_464 == forms.prior_params(24)
    assert found["head"] == 588_354_048 and found["request"] == 7_474_106_880
    head = forms.entropic_head([96, 48, 24], 224)
    assert (head.macs, head.params, head.elements) == (588_354_048, 138_672, 72_600)
    assert forms.entropic_head([96, 48, 24], 224, gdn=False).macs == 465_523_200
    assert forms.entropic_decoder(head).macs == 3_582_525_440
    assert counts(network("resnet50"))["request"] == 4_089_184_256


def test_the_entropic_student_with_sixteen_channels():
    head = forms.entropic_head([64, 32, 16], 224)
    assert (head.params, head.macs, head.elements) == (63_264, 281_561_088, 48_400) and forms.prior_params(16) == 976
    subject = on_meta(lambda: entropic(network("resnet50")(), channels=16))
    assert subject.module.device_params() == 63_264 and elements(subject) == 48_400


def test_gdn_is_a_fifth_of_the_entropic_head_and_is_counted():
    whole, without = (forms.entropic_head([96, 48, 24], 224, gdn=kept).macs for kept in (True, False))
    assert (whole - without) / whole == pytest.approx(0.209, abs=5e-4)


@pytest.mark.parametrize("name, wide", [("regnety_064", (288, 144, 144)), ("vit_small_r26_s32_224", (512, 256, 256))])
def test_regnet_and_hybrid_have_encoders_of_64_and_their_own_decoders(name, wide):
    student = on_meta(lambda: entropic(network(name)())).module
    assert [part.out_channels for part in student.encoder if hasattr(part, "out_channels")] == [64, 64, 64]
    assert tuple(part.out_channels for part in student.decoder if hasattr(part, "out_channels")) == wide


@pytest.mark.parametrize(
    "cut, payload, head",
    [
        ("stem", 802_816, 118_013_952),
        ("layer1", 3_211_264, None),
        ("layer2", None, 1_813_561_344),
        ("layer4", 401_408, None),
    ],
)
def test_a_plain_cut_of_resnet50(cut, payload, head):
    subject = on_meta(lambda: plain(network("resnet50")(), cut=cut))
    if payload is not None:
        assert 4 * elements(subject) == payload
    if head is not None:
        assert counts(lambda: plain(network("resnet50")(), cut=cut))["head"] == head


def test_an_early_cut_expands_the_picture():
    shapes = on_meta(network("resnet50")).module
    found = []
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        channels, high, wide = shapes.shape_after(stage)
        found.append(round(forms.expansion(channels * high * wide, 224), 2))
    assert found == [1.33, 5.33, 2.67, 1.33, 0.67]


@pytest.mark.parametrize(
    "heads, params, macs",
    [
        (12, 85_806_346, 17_563_067_904),
        (6, 21_669_514, 4_598_502_144),
        (4, 9_727_754, 2_136_105_472),
        (2, 2_504_586, 603_271_424),
    ],
)
def test_vit_base_with_fewer_heads(heads, params, macs):
    base = lambda: split_vit(width=768, heads=12, depth=12, patch=16, resolution=224)  # noqa: E731
    subject = on_meta(lambda: pruned_vit(base(), heads=heads))
    assert sum(p.numel() for p in subject.module.parameters()) == params == params_of(on_meta(base).module, heads)
    assert counts(lambda: pruned_vit(base(), heads=heads))["request"] == macs == macs_of(on_meta(base).module, heads)


def test_three_sub_models_of_vit_base_in_180_mib_keep_five_heads():
    base = on_meta(lambda: split_vit(width=768, heads=12, depth=12, patch=16, resolution=224)).module
    assert widest(12, 3, lambda heads: size_mib(base, heads), 180) == 5
    assert size_mib(base, 2) == pytest.approx(9.554, abs=5e-4)
    with torch.device("meta"):
        assert ed_vit(base, n=3).specialists[0].vit.blocks[0].attn.heads == 5


def test_the_front_end_of_a_detector():
    found = counts(detector_frontend)
    assert found["head"] == 3_200 and detector_frontend().device_params() == 2_144
    raw, small = detector_readout(), detector_frontend(bits=3)
    cells = raw.example_inputs(1)[0]
    assert len(raw.encode(raw.head(cells))) - 5 == 42 and len(small.encode(small.head(cells))) - 5 == 6
