"""Services in the workload: stages that are there, shares, differences of pixels, batches, frames, accuracy."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import UsageError
from bench.meters.quality import Run
from bench.workloads import module_of
from suites.serving.couplings import NAMES, Coupling
from suites.serving.digits_served import DigitsServed
from suites.serving.digits_service import digits_service
from suites.serving.image_service import image_service
from suites.serving.two_networks import two_networks
from tests.suites.serving.test_transports import needed
from tests.workloads.subjects import FakeBuilt


class Wall(FakeBuilt):
    """A subject on the real clock."""

    def __init__(self, module):
        import time

        super().__init__(module)
        self.clock = time.perf_counter_ns

    @staticmethod
    def wait_until(moment, clock):
        from bench.workloads.open_loop import spin_until

        spin_until(moment, clock)


def facts_of(module, **shape):
    pipeline = module_of("pipeline")
    whole = pipeline.WORKLOAD.shape({"seconds": 1, **shape})
    built = Wall(module)
    with torch.inference_mode():
        return pipeline.facts(built, whole, pipeline.make_parts(built, whole))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return image_service(image="small", side=32)


@pytest.fixture(scope="module")
def told(small):
    return facts_of(small)


def test_the_canonical_chain_has_its_stages_in_order(small):
    names = ["decode", "resize", "crop", "normalise", "layout", "collate", "infer", "post"]
    assert [name for name, _ in small.stages()] == names
    draft = image_service(image="small", side=32, decode="pillow_draft")
    assert draft.stages()[0][0] == "decode_reduced"
    assert [name for name, _ in image_service(image="small", side=32, given="tensor").stages()] == ["infer", "post"]


def test_a_segmenter_answers_with_the_file_of_its_mask():
    torch.manual_seed(0)
    module = image_service(network="torchvision:lraspp_mobilenet_v3_large", image="small", side=64)
    with torch.inference_mode():
        value = module.example_request(0)
        for _, stage in module.stages()[:-1]:
            value = stage(value)
        answer = module.post(value)
    assert value.shape == (1, 21, 64, 64) and answer.dtype == torch.uint8
    mask = np.asarray(Image.open(io.BytesIO(answer.numpy().tobytes())))
    assert np.array_equal(mask, value[0].argmax(0).numpy())
    assert module.post(torch.empty(2, 21, 8, 8, device="meta")).shape == (2, 8, 8)
    with pytest.raises(ValueError, match="one byte"):
        module.post(torch.zeros(1, 300, 2, 2))


def test_a_network_of_videos_is_refused():
    with pytest.raises(UsageError, match="classifier or a segmenter"):
        image_service(network="torchvision:r3d_18", side=32)


def test_a_ready_input_gives_the_answer_of_the_chain(small):
    ready = image_service(image="small", side=32, given="tensor")
    ready.load_state_dict(small.state_dict())
    with torch.inference_mode():
        value = small.example_request(3)
        for _, stage in small.stages():
            value = stage(value)
        assert torch.equal(value, ready.post(ready.infer(ready.example_request(3))))


def test_sections_have_rates_and_the_busiest_stage_is_the_bottleneck(told):
    found = {item.metric: item.value for item in told.readings if item.part == "request"}
    # which of two measured rates is higher is a matter of the moment; that all three were measured is not
    assert min(found[name] for name in ("preprocess_rate", "saturated_rate", "network_rate")) > 0
    assert found["transfer_rate"] is None and found["request_pixels"] == 4200
    assert found["bits_per_pixel"] == pytest.approx(8 * found["request_bytes"] / 4200, rel=1e-6)
    busy = {item.part: item.value for item in told.readings if item.metric == "stage_utilisation"}
    shares = {item.part: item.value for item in told.readings if item.metric == "stage_share"}
    assert told.details["bottleneck"] == max(busy, key=busy.get) == max(shares, key=shares.get) == "infer"
    assert found["nonnetwork_share"] == pytest.approx(100 - shares["infer"])


def test_pixels_are_compared_with_the_reference_chain(told):
    same = {item.metric: item.value for item in told.readings}
    assert same["pixel_difference"] == 0
    other = image_service(image="96x80", side=32, resize="torch_plain")
    assert other.pixel_difference(0) > 5


def test_requests_answered_together_are_those_answered_alone(small):
    with torch.inference_mode():
        alone, together = [], []
        for index in range(3):
            value = small.example_request(index)
            for name, stage in small.stages():
                together += [value] if name == "collate" else []
                value = stage(value)
            alone.append(value)
        value = together
        for _, stage in small.stages()[5:]:
            value = stage(value)
    assert torch.allclose(value, torch.cat(alone), atol=1e-5)


def test_a_batched_open_loop_tells_how_many_it_answered_together(small):
    facts = facts_of(small, together=4, window_ms=50.0, rate=200.0)
    found = {item.metric: item.value for item in facts.readings}
    assert 1 <= found["together_mean"] <= 4 and found["outside_service_ms"] is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fused"])
def test_crops_come_through_a_hop_as_they_were(name):
    needed(name)
    crops = [np.random.default_rng(index).bytes(76_800) for index in range(6)]  # more than a ring has slots
    hop = Coupling(name, 76_800, 6)
    assert hop.passed(crops) == crops and hop.passed([]) == [] and hop.passed(crops[4:]) == crops[4:]
    publisher = hop._open[0].pid
    assert publisher != os.getpid() and hop.described()["publisher"] == "a process of its own"
    with pytest.raises(ValueError, match="room for 6 of 76800"):
        hop.passed(crops + crops)
    hop.close()
    with pytest.raises(ProcessLookupError):
        os.kill(publisher, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fused"])
def test_vectors_are_the_same_through_every_coupling(name):
    needed(name)
    torch.manual_seed(0)
    fused = two_networks(k=2, side=32, crop=32)
    joined = two_networks(k=2, side=32, crop=32, coupling=name)
    joined.load_state_dict(fused.state_dict())
    with torch.inference_mode():
        a, b = (through(module, 0) for module in (fused, joined))
    assert torch.equal(a, b) and a.shape[0] == 2
    joined._coupling.close()


def through(module, index):
    value = module.example_request(index)
    for _, stage in module.stages():
        value = stage(value)
    return value


def test_objects_are_as_many_as_set_or_as_drawn():
    fixed, drawn = two_networks(k=3, side=32, crop=32, frames=2), two_networks(k=3, objects="poisson", side=32, crop=32)
    assert fixed.counts.tolist() == [[3, 3]] * 8 and fixed.frames_per_request == 2
    assert drawn.counts.std() > 0
    with torch.inference_mode():
        assert through(fixed, 0).shape[0] == 6
        assert through(two_networks(k=0, side=32, crop=32), 0).shape[0] == 0


def test_a_crop_is_as_many_bytes_as_the_study_says():
    assert two_networks(k=1, coupling="shared_memory")._coupling.size == 76_800


def test_frames_per_second_are_requests_times_frames():
    module = two_networks(k=1, side=32, crop=32, frames=2)
    found = {item.metric: item.value for item in facts_of(module).readings if item.part == "request"}
    assert found["frame_rate"] == pytest.approx(2 * found["saturated_rate"])


def test_what_does_not_fit_together_is_refused(small):
    with pytest.raises(ValueError, match="come by no transport"):
        image_service(image="small", side=32, given="tensor", transport="pipe")
    with pytest.raises(UsageError, match="give one of them"):
        facts_of(small, rate=5.0, load=0.5)
    with pytest.raises(UsageError, match="set servers=1"):
        facts_of(small, together=2, servers=2)
    with pytest.raises(UsageError, match="has no stage that takes several"):
        facts_of(image_service(image="small", side=32, given="tensor"), together=2)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A narrow classifier, trained briefly, and the task."""
    from suites.common.tasks.digits import Training

    task = DigitsServed(tmp_path_factory.mktemp("weights"), 0, training=Training(steps=200, grown_steps=0))
    task.prepare("digits_service", lambda: seeded(quality=95))
    return task


def seeded(**settings):
    torch.manual_seed(0)
    return digits_service(side=16, width=8, **settings)


def score(task, **settings):
    module = seeded(**settings)
    task.load(module, "digits_service")
    with torch.inference_mode():
        return task.score(Run(module.eval())).value


def test_accuracy_is_taken_on_the_output_of_the_chain(scored):
    """At 64 px a block of the file is one pixel of a digit, which survives any quality; at 16 px it is sixteen."""
    fine, coarse = (score(scored, quality=quality, size=16) for quality in (95, 1))
    assert fine > coarse + 10
    large, reduced = (score(scored, quality=95, decode=decode) for decode in ("pillow", "pillow_draft"))
    assert reduced == pytest.approx(large, abs=8)


def test_all_variants_share_weights(scored):
    first, other = seeded(quality=95), seeded(quality=5, resize="torch_plain", size=32)
    scored.load(first, "digits_service")
    scored.load(other, "digits_service")
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_task_of_served_digits_refuses_a_network_without_a_chain(scored):
    from suites.common.digits_cnn import digits_cnn

    with pytest.raises(UsageError, match="take digits_service"):
        scored.fits(digits_cnn(), "digits_cnn")


def test_the_names_in_a_builder_s_annotation_are_those_of_the_tables():
    """Annotations are read without an import, so that names stand there once more."""
    from typing import get_args, get_type_hints

    from suites.serving import couplings, decoders, resizers
    from suites.serving.transports import table

    known = {"decode": decoders.NAMES, "resize": resizers.NAMES, "transport": table.NAMES, "coupling": couplings.NAMES}
    for build in (image_service, digits_service, two_networks):
        hints = get_type_hints(build)
        for name in known.keys() & hints:
            assert get_args(hints[name]) == known[name], (build, name)


class Identities(torch.nn.Module):
    """Stages that do nothing."""

    requests = 4

    def __init__(self, count):
        super().__init__()
        self.count = count

    def stages(self):
        return [(f"stage{place}", lambda value: value) for place in range(self.count)]

    def example_request(self, index):
        return index


def test_a_chain_of_identities_costs_stamps_alone_and_the_cost_of_one_is_told():
    details = facts_of(Identities(50)).details
    assert 0 < details["stamp_ns"] < 1e6  # a stamp of a millisecond would be most of a decode


def test_a_chain_of_one_stage_has_the_latency_of_that_stage():
    from suites.serving.known_server import known_server

    facts = facts_of(known_server(ms=2.0))
    share = next(item.value for item in facts.readings if item.metric == "stage_share")
    found = {item.metric: item.value for item in facts.readings if item.part == "request"}
    assert share > 95 and found["saturated_rate"] <= 500 and facts.details["bottleneck"] == "spin"


@pytest.mark.parametrize("name", ["pipe", "http"])
def test_an_answer_can_be_given_again_and_again_by_itself(name):
    needed(name)
    module = image_service(image="small", side=32, transport=name)
    pipeline = module_of("pipeline")
    built = Wall(module)
    parts = {part.name: part for part in pipeline.make_parts(built, pipeline.WORKLOAD.shape({}))}
    with torch.inference_mode():
        for _ in range(3):
            parts["respond"].prepare()
            assert parts["respond"].call().shape == (1, 5, 2)  # classes and their scores
            parts["respond"].reset()
    module._transport.close()
