"""streaminnc: exact where windows are padded with the signal, repaired or off by a known error where with zeros."""

import pytest
import torch

from suites.streaming.frames import clip
from suites.streaming.series import SeriesConv, SeriesPool, acc, eeg, ppg
from suites.streaming.streaminnc import pool_error_bound, streaminnc
from tests.suites.streaming.walk import difference, first_answer, macs, numbers, step_macs, walked


def spread(net):
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.double()


NETS = {
    "ppg": lambda **more: spread(ppg(**{"window": 64, "hop": 16, **more})),
    "eeg": lambda **more: spread(eeg(**{"channels": 3, "window": 192, "hop": 64, **more})),
    "acc": lambda **more: spread(acc(**{"window": 32, "hop": 8, **more})),
}


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("cache", ["outputs", "inputs"])
def test_with_signal_padding_reuse_is_exact_in_both_caches(name, cache):
    torch.manual_seed(0)
    stream = streaminnc(NETS[name](padding="signal"), mode="exact", cache=cache)
    sequence = stream.net.example_clip(2, stream.transient + 6)
    assert difference(stream, sequence) < 1e-12
    assert first_answer(stream, sequence) == stream.first_output


@pytest.mark.parametrize("name", sorted(NETS))
def test_repaired_windows_are_those_of_the_zero_padded_network(name):
    torch.manual_seed(0)
    stream = streaminnc(NETS[name](), mode="partial")
    assert difference(stream, stream.net.example_clip(2, 9)) < 1e-12


@pytest.mark.parametrize("hop", [16, 48])
@pytest.mark.parametrize("mode, cache", [("partial", "outputs"), ("exact", "outputs"), ("exact", "inputs")])
def test_hops_on_the_grid_that_do_not_divide_the_window_are_as_right(hop, mode, cache):
    torch.manual_seed(0)
    net = NETS["ppg"](window=80, padding="zero" if mode == "partial" else "signal")
    stream = streaminnc(net, mode=mode, cache=cache, hop=hop)
    assert difference(stream, net.example_clip(3, stream.transient + 5)) < 1e-12


@pytest.mark.parametrize("name, window", [("ppg", 64), ("eeg", 192), ("acc", 32)])
@pytest.mark.parametrize("mode", ["approx", "partial"])
def test_a_hop_of_the_whole_window_is_the_plain_network(name, window, mode):
    torch.manual_seed(0)
    stream = streaminnc(NETS[name](), mode=mode, hop=window)
    assert difference(stream, stream.net.example_clip(1, 4)) == 0


def test_reuse_over_zeros_is_wrong_around_old_edges_and_right_between_them():
    torch.manual_seed(0)
    stream = streaminnc(NETS["acc"](window=96, hop=32), mode="approx")
    sequence = stream.net.example_clip(1, 8)
    _, state = walked(stream, sequence)
    assert not stream.exact and 0 < difference(stream, sequence) < 1
    with torch.inference_mode():
        window = stream.net.features(sequence[:, :, -96:])
    apart = (state[-1] - window).abs().amax(dim=(0, 1))
    assert stream.net.ahead == 6
    near = [place for place in range(96) if any(-6 <= place - edge < 6 for edge in (0, 32, 64))]
    between = sorted(set(range(96)) - set(near))
    assert float(apart[between].max()) < 1e-12 and float(apart[near].max()) > 1e-9


def test_a_sample_waits_half_a_step_in_the_mean_and_for_cells_that_no_answer_has_yet():
    # hop 64: 0 to 63 samples, 31.5 / 64 of a step; windows at every second hop: 63.5 / 64
    for net in (ppg(), ppg(padding="signal")):
        assert (net.dependency_delay, net.alignment_delay) == (31.5 / 64, 0)
    assert streaminnc(ppg()).dependency_delay == streaminnc(ppg(), mode="partial").dependency_delay == 31.5 / 64
    assert streaminnc(ppg(padding="signal"), mode="exact").dependency_delay == 31.5 / 64
    assert clip(ppg(), hop=2).dependency_delay == 63.5 / 64
    # hop 40 on cells of 16: after 40 samples 32 are in a cell, after 80 all: 19.5 and 4 samples more in the mean
    off_grid = streaminnc(ppg(padding="signal"), mode="exact", hop=40, pool_aligned=False)
    assert off_grid.dependency_delay == 23.5 / 40
    # eeg looks 21 samples ahead and answers one cell of 64 late: 43 samples are in no answer of their step
    for late in (eeg(padding="signal"), streaminnc(eeg(padding="signal"), mode="exact")):
        assert (late.dependency_delay, late.alignment_delay) == (170.5 / 256, 64 / 256)
    # without pools the answer about six samples ago depends on the newest one
    newest = streaminnc(acc(hop=1, padding="signal"), mode="exact")
    assert (newest.dependency_delay, newest.alignment_delay) == (0, 6)


def test_a_stream_of_single_samples_is_the_causal_network():
    torch.manual_seed(0)
    stream = streaminnc(spread(acc(window=16, hop=1, padding="signal")), mode="exact")
    assert difference(stream, stream.net.example_clip(1, 40)) < 1e-12


def test_the_exact_ring_keeps_the_inputs_of_layers_and_the_tail():
    stream = streaminnc(ppg(padding="signal"), mode="exact", cache="inputs")
    _, state = walked(stream, stream.net.example_clip(1, 10))
    assert numbers(state) == 2952 + 16 * 64
    assert 1 + stream.net.reach + 15 == 328  # samples that a cell of 16 looks at


def test_the_eeg_network_counts_as_published():
    net = eeg()
    assert macs(lambda: net.offline(net.example_clip(1, 4))) == 24_584_392
    stream = streaminnc(eeg(), mode="approx")
    assert step_macs(stream, stream.net.example_clip(1, 6), 5) == 6_299_848
    assert sum(each.numel() for each in net.parameters()) == 313_006


def convolutions(net):
    """Products of the convolutions of one window."""
    found, length = 0, net.samples
    for layer in net.layers:
        if isinstance(layer, SeriesConv):
            found += layer.conv.weight.numel() * length
        else:
            length //= layer.size
    return found


@pytest.mark.parametrize("hop", [32, 64, 128, 256])
@pytest.mark.parametrize("mode, cache, padding", [
    ("approx", "outputs", "zero"), ("exact", "outputs", "signal"), ("exact", "inputs", "signal"),
])  # fmt: skip
def test_convolutions_shrink_with_the_hop_and_the_tail_does_not(hop, mode, cache, padding):
    stream = streaminnc(ppg(padding=padding), mode=mode, cache=cache, hop=hop)
    steps = stream.transient + 2
    found = step_macs(stream, stream.net.example_clip(1, steps), steps - 1)
    tail = macs(lambda: stream.net.tail(torch.zeros(1, 64, 16)))
    assert found == convolutions(stream.net) * hop // 256 + tail


def test_a_hop_off_the_grid_of_the_pools_is_refused_or_answers_with_an_error():
    with pytest.raises(ValueError, match="multiple of 16"):
        streaminnc(ppg(), hop=40)
    torch.manual_seed(0)
    stream = streaminnc(spread(ppg(padding="signal")), mode="exact", hop=40, pool_aligned=False)
    sequence = stream.net.example_clip(1, stream.transient + 5)
    assert not stream.exact and 0 < difference(stream, sequence) < 0.2


@pytest.mark.parametrize("settings", [
    {"mode": "exact"}, {"mode": "partial", "cache": "inputs"}, {"mode": "approx", "hop": 512},
])  # fmt: skip
def test_what_does_not_go_together_is_refused(settings):
    with pytest.raises(ValueError):
        streaminnc(ppg(), **settings)
    with pytest.raises(ValueError):
        streaminnc(ppg(padding="signal"), mode="partial")
    with pytest.raises(ValueError):
        streaminnc(eeg(), cache="inputs")


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize("size", [2, 4])
def test_cells_off_the_grid_are_wrong_by_less_than_the_bound_and_by_something(kind, size):
    components = [(1.0, 1.0), (0.5, 2.5)]
    time = torch.arange(257, dtype=torch.float64) / 32
    signal = sum(a * (2 * torch.pi * f * time).sin() for a, f in components)[None, None]
    pool = SeriesPool(size, kind)
    cells = 256 // size - 1
    for shift in range(1, size):
        apart = float((pool(signal)[..., :cells] - pool(signal[..., shift:])[..., :cells]).abs().max())
        assert 0 < apart <= pool_error_bound(size, components, 32)


def test_one_stream_of_a_batch_can_forget():
    torch.manual_seed(0)
    stream = streaminnc(NETS["ppg"](padding="signal"), mode="exact")
    sequence = stream.net.example_clip(2, 12)
    _, state = walked(stream, sequence)
    stream.reset(state, 0)
    assert all(float(each[0].abs().sum()) == 0 for each in state if isinstance(each, torch.Tensor))
    assert float(state[-1][1].abs().sum()) > 0


@pytest.mark.parametrize("mode, padding", [("partial", "zero"), ("exact", "signal")])
def test_numbers_of_two_bytes_differ_by_their_rounding(mode, padding):
    torch.manual_seed(0)
    stream = streaminnc(NETS["acc"](padding=padding).bfloat16(), mode=mode)
    sequence = stream.net.example_clip(2, stream.transient + 4)
    outputs, _ = walked(stream, sequence)
    assert outputs[-1].dtype == torch.bfloat16
    assert difference(stream, sequence) < 5e-2 * float(outputs[-1].abs().max())
