"""co_transformer: one query over rings gives what the window gives; retroactive sums stay those of the window."""

import pytest
import torch

from suites.streaming import closed_forms
from suites.streaming.co_transformer import LIMIT, co_transformer
from suites.streaming.encoder import encoder
from tests.suites.streaming.walk import difference, macs, numbers, step_macs, walked

SMALL = {"n": 6, "d": 16, "h": 2, "f": 12, "d_in": 10, "classes": 5}
PAPER = {"n": 64, "d": 1024, "f": 1024, "d_in": 3072, "classes": 22}


def small(**settings):
    torch.manual_seed(0)
    return encoder(**{**SMALL, **settings}).double()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("positions", [0, 6, 11])
@pytest.mark.parametrize("refresh", [0, None, 4])
@pytest.mark.parametrize("last_q", ["all", "one"])
def test_steps_are_the_newest_token_of_the_window(layers, positions, refresh, last_q):
    stream = co_transformer(small(layers=layers, positions=positions), refresh=refresh, last_q=last_q)
    assert difference(stream, stream.net.example_clip(2, 25)) < 1e-12
    assert stream.first_output == stream.transient == 5


def test_a_window_that_is_not_full_is_none_or_the_tokens_that_there_are():
    net = small(layers=2)
    sequence = net.example_clip(1, 8)
    silent, _ = walked(co_transformer(net), sequence)
    assert [output is None for output in silent] == [True] * 5 + [False] * 3
    early, _ = walked(co_transformer(net, warm="partial"), sequence)
    for place in range(5):
        with torch.inference_mode():
            x = net.tokens(sequence[:, : place + 1], 0)
            for layer in net.layers:
                x = layer(x)
            assert torch.allclose(early[place], net.classify(x[:, -1]), atol=1e-12)


def test_all_tokens_behind_the_retroactive_layer_are_those_of_the_window():
    net = small(layers=2)
    stream, sequence = co_transformer(net, refresh=0), net.example_clip(2, 20)
    _, state = walked(stream, sequence[:, :19])
    with torch.inference_mode():
        found = stream.retroactive(net.tokens(sequence[:, 19:], 19), state)
        wanted = net.layers[0](net.tokens(sequence[:, 14:], 14))
    order = [time % 6 for time in range(14, 20)]  # where in the ring the tokens of the window stand
    assert torch.allclose(found[:, order], wanted, atol=1e-12)


def test_where_in_the_ring_a_token_stands_changes_nothing():
    net = small()
    stream, sequence = co_transformer(net), net.example_clip(1, 12)
    _, one = walked(stream, sequence[:, :11])
    order = torch.tensor([3, 1, 0, 2, 4, 5])
    slot = one[0] % 6
    assert order[slot] == slot  # the slot that is overwritten next
    other = [one[0], one[1][:, :, order], one[2][:, :, order]]
    with torch.inference_mode():
        a, _ = stream.step(sequence[:, 11], one)
        b, _ = stream.step(sequence[:, 11], other)
    assert torch.allclose(a, b, atol=1e-12)


def test_states_hold_two_rings_or_four_with_denominators_and_tokens():
    _, state = walked(co_transformer(small()), small().example_clip(1, 8))
    assert numbers(state) == 2 * 6 * 16
    _, state = walked(co_transformer(small(layers=2)), small().example_clip(1, 8))
    assert numbers(state) == 4 * 6 * 16 + 6 * 2 + 6 * 16


@pytest.mark.parametrize("layers, last_q, products", [
    (1, "all", 9_590_784), (2, "all", 412_633_088), pytest.param(2, "one", 346_572_800, marks=pytest.mark.slow),
])  # fmt: skip
def test_products_of_a_step_are_those_of_the_paper_s_sizes(layers, last_q, products):
    model, method = {**PAPER, "layers": layers}, {"last_q": last_q}
    assert closed_forms.co_transformer(model, method) == products
    with torch.device("meta"):
        stream = co_transformer(encoder(**model), **method)
        assert step_macs(stream, torch.zeros(1, 66, 3072), 65) == products


def test_a_step_that_makes_all_sums_anew_exchanges_none_before():
    # ends 160 + 80; q, k, v 768, two products of 6 x 6 x 16, out 1536, feed-forward 2304; last 4608 + 192 + 256 + 384
    stream = co_transformer(small(layers=2), refresh=1)
    wanted = 240 + 768 + 2 * 36 * 16 + 1536 + 2304 + 5440
    assert wanted == 11_440 and step_macs(stream, stream.net.example_clip(1, 9), 8) == wanted


def test_a_fair_offline_network_makes_the_newest_token_of_its_last_layer_alone():
    assert closed_forms.offline_encoder(PAPER) == 612_390_912
    assert closed_forms.offline_encoder(PAPER, last=True) == 339_892_224
    with torch.device("meta"):
        for form, wanted in (("all", 612_390_912), ("last", 339_892_224)):
            net = encoder(**PAPER, offline=form)
            assert macs(lambda net=net: net.offline(torch.zeros(1, 64, 3072))) == wanted
        assert sum(each.numel() for each in net.parameters()) == 9_468_950
    clip = small().example_clip(1, 6)
    with torch.inference_mode():
        assert torch.allclose(small().offline(clip), small(offline="last").offline(clip), atol=1e-12)


def test_the_small_encoder_of_frames_counts_as_published():
    settings = {"n": 16, "d": 64, "h": 4, "f": 128, "d_in": 64, "classes": 20}
    assert closed_forms.co_transformer(settings, {}) == 40_192
    net = encoder(**settings, pictures=True)
    assert macs(lambda: net.offline(net.example_clip(1, 16))) == 623_872
    assert step_macs(co_transformer(net), net.example_clip(1, 17), 16) == 40_192


@pytest.mark.parametrize("refresh, steps", [(0, 400), (6, 400), pytest.param(0, 10_000, marks=pytest.mark.slow)])
def test_sums_that_are_only_exchanged_drift_little_and_are_made_anew(refresh, steps):
    stream = co_transformer(small(layers=2).float(), refresh=refresh)
    sequence = stream.net.example_clip(1, steps)
    outputs, _ = walked(stream, sequence)
    with torch.inference_mode():
        wanted = stream.net.offline(sequence)
    assert float((outputs[-1] - wanted).abs().max()) < (1e-3 if refresh == 0 else 1e-5)


@pytest.mark.parametrize("refresh", [0, 6])
def test_sums_of_numbers_of_two_bytes_are_kept_in_four(refresh):
    stream = co_transformer(small(layers=2).bfloat16(), refresh=refresh)
    sequence = stream.net.example_clip(2, 400)
    outputs, state = walked(stream, sequence)
    assert [each.dtype for each in state[1:]] == [torch.bfloat16] * 3 + [torch.float32] * 2 + [torch.bfloat16]
    with torch.inference_mode():
        wanted = stream.net.offline(sequence)
    assert float((outputs[-1] - wanted).abs().max() / wanted.abs().max()) < 5e-2


def test_training_begins_everywhere_in_the_ring_of_positions():
    net = small(positions=7).train()
    sequence, seen = net.example_clip(1, 6), set()
    for _ in range(7):
        net.positions.grad = None
        net(sequence).square().sum().backward()
        seen |= set(net.positions.grad.abs().sum(1).nonzero().flatten().tolist())
        assert net(sequence).shape == (1, 1, 5)
    assert seen == set(range(7))
    net.eval()
    assert torch.equal(net(sequence), net.reference(sequence))


def test_scores_beyond_what_an_exponential_holds_stay_finite():
    net = small(layers=2).float()
    net.layers[0].q.weight.data *= 1e4
    outputs, _ = walked(co_transformer(net), net.example_clip(1, 12))
    assert all(output.isfinite().all() for output in outputs if output is not None) and LIMIT < 88


def test_a_retroactive_stream_that_forgets_sees_zeros_and_six_tokens_later_nothing_else():
    net = small(layers=2)
    sequence, found = net.example_clip(2, 20), []
    for refresh in (0, 1):  # sums that are exchanged, and sums that are made of what the rings hold
        stream = co_transformer(net, refresh=refresh)
        _, state = walked(stream, sequence[:, :10])
        stream.reset(state, 0)
        said = []
        with torch.inference_mode():
            for place in range(10, 20):
                output, state = stream.step(sequence[:, place], state)
                said.append(output)
        found.append(torch.stack(said))
    whole = torch.stack(walked(co_transformer(net, refresh=0), sequence)[0][10:])
    assert found[0].isfinite().all() and torch.allclose(found[0], found[1], atol=1e-10)
    assert torch.allclose(found[0][:, 1], whole[:, 1], atol=1e-12)
    assert torch.allclose(found[0][5:, 0], whole[5:, 0], atol=1e-10)
    assert not torch.allclose(found[0][0, 0], whole[0, 0])


def test_pictures_have_as_many_means_as_a_square():
    with pytest.raises(ValueError, match="d_in=50"):
        encoder(**{**SMALL, "d_in": 50}, pictures=True)


def test_one_stream_of_a_batch_can_forget():
    stream = co_transformer(small())
    sequence = stream.net.example_clip(2, 20)
    _, state = walked(stream, sequence[:, :10])
    stream.reset(state, 0)
    assert float(state[1][0].abs().max()) == 0 and float(state[1][1].abs().min()) > 0
