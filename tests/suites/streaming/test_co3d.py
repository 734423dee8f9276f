"""co3d: steps are the network without temporal padding, in every form; states and products are closed forms."""

import pytest
import torch
from torch import nn

from bench.meters.macs import count
from bench.workloads.counting import count_part
from bench.workloads.workload import Part
from suites.streaming import closed_forms
from suites.streaming.co3d import VideoNet, co3d
from suites.streaming.co3d_tiny import co3d_tiny
from suites.streaming.continual import Chain, Each, Residual
from suites.streaming.convolution import Conv
from suites.streaming.frames import clip, frame
from suites.streaming.video_resnet import video_resnet
from suites.streaming.x3d import X3d, squeezed, x3d
from tests.suites.streaming.walk import difference, first_answer, macs, numbers, step_macs, walked

RINGS = ("pointer", "mirror", "roll", "cat")


def tiny(**settings):
    torch.manual_seed(0)
    return co3d_tiny(**{"padding": "valid", "resolution": 16, **settings}).double()


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("form", ["inputs", "partials", "library"])
@pytest.mark.parametrize("chunk", [1, 2, 4, 8])
def test_steps_are_the_network_without_padding_in_every_form(ring, form, chunk):
    stream = co3d(tiny(), ring=ring, form=form, chunk=chunk)
    sequence = stream.net.example_clip(2, 32)
    assert difference(stream, sequence) < 1e-12
    assert first_answer(stream, sequence) == stream.first_output == -(-13 // chunk)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("chunk", [3, 5])
def test_chunks_that_divide_neither_rings_nor_the_receptive_field_are_as_right(ring, chunk):
    stream = co3d(tiny(), ring=ring, chunk=chunk, pool=4)
    assert difference(stream, stream.net.example_clip(3, 7 * chunk)) < 1e-12


def test_a_clip_has_the_frames_of_the_network_whatever_the_chunk():
    whole = macs(lambda: tiny().offline(tiny().example_clip(1, 14)))
    stream = co3d(tiny(), chunk=4)
    assert stream.window == 4 and macs(lambda: stream.offline(stream.example_clip(1, 4))) == whole


def test_numbers_of_two_bytes_differ_by_their_rounding():
    stream = co3d(tiny().bfloat16(), form="partials")
    sequence = stream.net.example_clip(2, 20)
    outputs, _ = walked(stream, sequence)
    assert outputs[-1].dtype == torch.bfloat16
    assert difference(stream, sequence) < 5e-2 * float(outputs[-1].abs().max())


def test_the_first_answer_comes_after_the_receptive_field_of_features_and_of_the_mean():
    assert tiny().body.reach == 6 and co3d(tiny()).first_output == 13 and co3d(tiny(), pool=1).first_output == 6


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("form", ["inputs", "partials", "library"])
@pytest.mark.parametrize("ring", RINGS)
def test_one_convolution_is_its_own_clip_also_dilated_and_in_groups(dilation, form, ring):
    class One(VideoNet):
        frames, channels, resolution, classes = 5, 4, 6, 4

        def __init__(self):
            super().__init__()
            self.body = Chain(Conv(nn.Conv3d(4, 4, (3, 3, 3), 1, (1, 1, 1), (dilation, 1, 1), groups=2)))
            self.head = nn.Identity()

    torch.manual_seed(0)
    stream = co3d(One().double(), form=form, ring=ring, pool=1)
    assert difference(stream, stream.net.example_clip(1, 12)) < 1e-12
    assert stream.first_output == 2 * dilation


def test_strides_in_time_answer_every_fourth_step_on_the_grid_of_the_clip():
    class Strided(VideoNet):
        frames, channels, resolution, classes = 8, 1, 4, 2

        def __init__(self):
            super().__init__()
            convs = [Conv(nn.Conv3d(1, 2, (3, 3, 3), (2, 1, 1), 1)), Conv(nn.Conv3d(2, 2, (3, 3, 3), (2, 1, 1), 1))]
            self.body = Chain(*convs)
            self.head = nn.Linear(2, 2)

    torch.manual_seed(0)
    stream = co3d(Strided().double(), pool=1)
    sequence = stream.net.example_clip(1, 30)
    outputs, _ = walked(stream, sequence)
    assert [place for place, output in enumerate(outputs) if output is not None] == list(range(6, 30, 4))
    assert stream.period == 4 and difference(stream, sequence) < 1e-12
    dropped = co3d(Strided().double(), pool=1, strides="drop")
    assert dropped.period == 1 and dropped.first_output == 4 and difference(dropped, sequence) < 1e-12


def test_residual_blocks_that_do_nothing_give_the_frame_of_their_centre():
    body = Chain(*(Residual(Conv(nn.Conv3d(1, 1, (3, 1, 1), padding=(1, 0, 0), bias=False))) for _ in range(3)))
    for parameter in body.parameters():
        parameter.data.zero_()
    net = tiny()
    net.body, net.head, net.resolution = body.double(), nn.Identity(), 1
    stream = co3d(net, pool=1)
    sequence = torch.arange(12.0, dtype=torch.float64).view(1, 12, 1, 1, 1)
    outputs, _ = walked(stream, sequence)
    said = [None if output is None else float(output) for output in outputs]
    assert said == [None] * 6 + [float(place - 3) for place in range(6, 12)] and stream.alignment_delay == 3


@pytest.mark.parametrize("form", ["inputs", "partials"])
def test_one_frame_for_ever_reaches_its_static_answer_exactly(form):
    stream = co3d(tiny(), form=form, pool=1)
    sequence = stream.net.example_clip(1, 1).expand(-1, 14, -1, -1, -1)
    outputs, _ = walked(stream, sequence)
    assert all(torch.equal(output, outputs[-1]) for output in outputs[stream.first_output + 2 :])
    with torch.inference_mode():
        assert torch.allclose(outputs[6], stream.reference(sequence)[:, -1], atol=1e-12)


def test_counts_and_states_of_the_small_network_are_the_published_ones():
    valid, zero = co3d_tiny(padding="valid"), co3d_tiny()
    assert macs(lambda: valid.offline(valid.example_clip(1, 14))) == 6_414_656
    assert macs(lambda: zero.offline(zero.example_clip(1, 8))) == 5_751_104
    stream = co3d(co3d_tiny(padding="valid"))
    sequence = valid.example_clip(1, 16)
    assert step_macs(stream, sequence, 15) == 719_168
    _, state = walked(stream, sequence)
    assert numbers(state) == 9216 + 7 * 16
    for ring, times in (("mirror", 2), ("roll", 1), ("cat", 1)):
        _, state = walked(co3d(co3d_tiny(padding="valid"), ring=ring), sequence)
        assert numbers(state) == times * (9216 + 7 * 16)


@pytest.mark.parametrize("form, times", [("inputs", 1), ("partials", 1), ("library", 3)])
def test_the_published_library_executes_as_many_times_the_products_as_its_kernel_is_long(form, times):
    stream = co3d(co3d_tiny(padding="valid"), form=form)
    found = step_macs(stream, stream.net.example_clip(1, 15), 14)
    assert found == times * 718_848 + 320 == closed_forms.executed({"padding": "valid"}, {"form": form})
    # what is executed on zeros is none of the answer's: all forms need the same, the rest is the method's own
    state = stream.settled(1)
    one = stream.net.example_clip(1, 1)[:, 0]
    counted = count_part(stream, Part("step", lambda: stream.step(one, state)), count)
    assert counted.macs == 718_848 + 320 == closed_forms.co3d({"padding": "valid"}, {"form": form})
    assert counted.method_macs == (times - 1) * 718_848


def test_one_stream_of_a_batch_can_forget_and_the_others_do_not_notice():
    stream = co3d(tiny(), ring="mirror")
    sequence = stream.net.example_clip(3, 30)
    _, whole = walked(stream, sequence[:, :16])
    _, cut = walked(stream, sequence[:, :16])
    stream.reset(cut, 1)
    with torch.inference_mode():
        for place in range(16, 30):
            untouched, whole = stream.step(sequence[:, place], whole)
            output, cut = stream.step(sequence[:, place], cut)
            assert torch.equal(output[[0, 2]], untouched[[0, 2]])
        assert torch.allclose(output[1], untouched[1], atol=1e-12)  # 14 frames later it has forgotten


@pytest.mark.parametrize("kind, strides", [("slow", "keep"), ("i3d", "keep"), ("i3d", "drop")])
def test_a_settled_state_costs_and_holds_what_one_does_that_was_walked_to(kind, strides):
    stream = co3d(video_resnet(kind=kind, frames=4, resolution=32, width=4, classes=5), pool=2, strides=strides)
    sequence = stream.net.example_clip(1, stream.first_output + 6)
    _, walked_to = walked(stream, sequence)

    def period(state):
        return sum(macs(lambda x=x: stream.step(x, state)) for x in sequence.unbind(1)[: stream.period])

    settled = stream.settled(1)
    with torch.inference_mode():
        assert stream.step(sequence[:, 0], settled)[0] is not None
        for place in range(1, stream.period):
            assert stream.step(sequence[:, place], settled)[0] is None
    assert numbers(settled) == numbers(walked_to)
    with torch.no_grad():
        assert period(stream.settled(1)) == sum(
            step_macs(stream, sequence, place) for place in range(sequence.shape[1] - stream.period, sequence.shape[1])
        )


def test_the_state_is_no_part_of_the_weights():
    stream = co3d(tiny())
    before = set(stream.state_dict())
    walked(stream, stream.net.example_clip(1, 20))
    assert set(stream.state_dict()) == before


@pytest.mark.parametrize("se", ["frame", "window"])
def test_x3d_steps_are_the_valid_network_over_57_frames(se):
    torch.manual_seed(0)
    stream = co3d(x3d(size="s", resolution=32, classes=5, frames=4), pool=2, se=se)
    assert stream.net.body.reach + 1 == 57 and stream.alignment_delay == 28 and stream.period == 1
    assert difference(stream, stream.net.example_clip(1, 60)) < 1e-5


def test_gates_have_as_many_channels_as_published():
    assert [squeezed(channels) for channels in (54, 108, 216, 432)] == [8, 8, 16, 32]


def meta(build):
    with torch.device("meta"):
        return build()


def convolution_state(net, form):
    """Numbers that the convolutions keep, from the sizes of their inputs or outputs."""
    found = 0

    def look(module, given, made):
        nonlocal found
        if isinstance(module, nn.Conv3d):
            return
        kept = given[0] if form == "inputs" else made
        keeps = module.kernel - 1
        found += (keeps if form == "inputs" else keeps**2) * kept[0, :, 0].numel()

    for layer in net.body.modules():
        if isinstance(layer, Conv):
            layer.clip = wrapped(layer, look)
    net.offline(net.example_clip(1, net.frames))
    return found


def wrapped(layer, look):
    inner = type(layer).clip

    def clip(x, mode):
        made = inner(layer, x, mode)
        look(layer, (x,), made)
        return made

    return clip


def test_x3d_m_has_the_published_weights_products_and_states():
    net = meta(lambda: x3d(size="m"))
    assert sum(each.numel() for each in net.parameters()) == 3_794_322
    assert closed_forms.clip({"size": "m"}, {}) == 4_732_468_736
    assert closed_forms.co3d({"size": "m"}, {}) == 297_525_776
    assert convolution_state(net, "inputs") == 6_199_872


@pytest.mark.slow
def test_the_form_of_the_library_keeps_more_of_x3d_m():
    assert convolution_state(meta(lambda: x3d(size="m")), "library") == 10_997_952


def test_x3d_l_looks_115_frames_back():
    assert meta(lambda: x3d(size="l")).body.reach + 1 == 115


@pytest.mark.parametrize("size, step, ratio", [("s", 0.153, 12.85), ("m", 0.298, 15.906), ("l", 1.150, 15.974)])
def test_ratios_of_clip_and_step_are_those_of_the_brief(size, step, ratio):
    of_step, of_clip = closed_forms.co3d({"size": size}, {}), closed_forms.clip({"size": size}, {})
    assert of_step / 1e9 == pytest.approx(step, abs=5e-4) and of_clip / of_step == pytest.approx(ratio, abs=5e-3)


@pytest.mark.parametrize("kind", ["slow", "i3d"])
def test_video_resnets_stream_and_count_as_their_sizes_say(kind):
    torch.manual_seed(0)
    settings = {"kind": kind, "frames": 4, "resolution": 32, "width": 4, "classes": 5}
    stream = co3d(video_resnet(**settings).double(), pool=1)
    sequence = stream.net.example_clip(1, 48)
    assert difference(stream, sequence) < 1e-12
    at = stream.first_output + stream.period
    period = sum(step_macs(stream, sequence, place) for place in range(at + 1, at + 1 + stream.period))
    assert period == closed_forms.co3d(settings, {})
    assert macs(lambda: stream.net.offline(sequence[:, :4])) == closed_forms.clip(settings, {})


def test_an_odd_frame_is_left_over_by_the_maximum_of_i3d():
    settings = {"kind": "i3d", "frames": 5, "resolution": 32, "width": 4, "classes": 5}
    net = video_resnet(**settings)
    maps = net.body.clip(net.example_clip(1, 5).transpose(1, 2), "zero")
    assert net.positions == co3d(net).pool == maps.shape[2] == 2
    assert macs(lambda: net.offline(net.example_clip(1, 5))) == closed_forms.clip(settings, {})
    with pytest.raises(ValueError, match="two or more"):
        video_resnet(kind="i3d", frames=1)


def test_a_frame_of_one_pixel_is_a_frame():
    assert co3d_tiny(resolution=1).example_clip(1, 2).shape == (1, 2, 1, 1, 1)


def test_the_window_run_again_answers_at_every_hop_and_the_frame_has_no_past():
    again = clip(tiny(), hop=3)
    sequence = again.example_clip(2, 24)
    outputs, _ = walked(again, sequence)
    assert [place for place, output in enumerate(outputs) if output is not None] == [13, 16, 19, 22]
    assert difference(again, sequence) < 1e-12 and again.dependency_delay == 1.0
    alone = frame(tiny())
    assert alone.frames == 1 and alone.untrained
    outputs, _ = walked(alone, sequence)
    other = sequence.clone()
    other[:, :-1] = 0
    assert torch.equal(outputs[-1], walked(alone, other)[0][-1])
    assert isinstance(frame(x3d(size="s", resolution=32, frames=3)), X3d)


def test_only_networks_of_clips_become_streams():
    with pytest.raises(ValueError, match="network of clips"):
        co3d(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="stride in time"):
        co3d(video_resnet(kind="i3d", resolution=32, width=4), chunk=2)
    with pytest.raises(ValueError, match="recomputes a window"):
        clip(Each(nn.Identity()))
