"""delta: the quantised network frame by frame, whatever its layers are told; costs of pixels counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from suites.common.tasks.moving_digits import MovingDigits
from suites.streaming.delta import DeltaNet, Quantised, delta, l1
from suites.streaming.frame_cnn import fan_out, frame_cnn
from tests.suites.streaming.walk import difference, numbers, step_macs, walked


def net(**settings):
    torch.manual_seed(0)
    return frame_cnn(**{"resolution": 16, "width": 4, **settings}).double()


@pytest.mark.parametrize("theta", [1e-6, 0.05, 0.4])
@pytest.mark.parametrize("per", ["layer", "channel", "neuron"])
@pytest.mark.parametrize("execution", ["dense", "gather"])
def test_changes_add_up_to_the_quantised_network(theta, per, execution):
    stream = delta(net(), theta=theta, per=per, execution=execution).double()
    assert difference(stream, stream.net.example_clip(2, 20)) < 1e-12


def test_maps_of_odd_sides_have_a_theta_for_every_neuron():
    stream = delta(net(resolution=18), per="neuron").double()  # maps of 18, 9, 5 and 5
    assert [tuple(each.theta.shape[1:]) for each in stream.rounded] == [(18, 18), (9, 9), (5, 5), (5, 5)]
    assert difference(stream, stream.net.example_clip(1, 6)) < 1e-12


def test_a_step_of_nothing_is_the_plain_network():
    plain = net()
    clip = plain.example_clip(1, 5)
    stream = delta(net(), theta=1e-7).double()
    with torch.inference_mode():
        assert float((stream(clip) - plain(clip)).abs().max()) < 1e-5


def effective(stream, clip):
    """What every step would cost."""
    state, found = stream.init(len(clip)), []
    with torch.inference_mode():
        for place in range(clip.shape[1]):
            found.append(stream.effective_macs(clip[:, place], state))
            _, state = stream.step(clip[:, place], state)
    return found


def test_a_picture_that_stands_still_costs_nothing_after_its_first_frame():
    stream = delta(net(noise=0.0, motion="static"), theta=0.01).double()
    clip = stream.net.example_clip(1, 6)
    first, *others = effective(stream, clip)
    assert first["delta"] == first["spatial"] > 0 and {each["delta"] for each in others} == {0.0}
    outputs, _ = walked(stream, clip)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_gathered_nothing_is_no_product_not_even_of_the_head():
    stream = delta(net(noise=0.0, motion="static"), theta=0.01, execution="gather").double()
    clip = stream.net.example_clip(1, 3)
    assert step_macs(stream, clip, 2) == 0 and step_macs(delta(net(), theta=0.01).double(), clip, 2) > 0


def test_a_step_that_makes_its_sums_anew_costs_what_the_first_one_does():
    stream = delta(net(noise=0.0, motion="static"), theta=0.01, reset_every=3).double()
    found = [each["delta"] for each in effective(stream, stream.net.example_clip(1, 7))]
    assert found == [found[0], 0.0, 0.0, found[0], 0.0, 0.0, found[0]] and found[0] > 0


def test_the_first_frame_is_dense_and_noise_keeps_everything_changing():
    still = effective(delta(net(noise=0.0), theta=0.1).double(), net(noise=0.0).example_clip(1, 8))
    noisy = effective(delta(net(noise=0.2), theta=0.1).double(), net(noise=0.2).example_clip(1, 8))
    assert all(each["delta"] <= each["dense"] and each["spatial"] <= each["dense"] for each in still)
    assert still[-1]["delta"] < 0.5 * noisy[-1]["delta"]
    assert still[0]["dense"] == step_macs(delta(net(), theta=0.1).double(), net().example_clip(1, 3), 2)


@pytest.mark.parametrize("row, column, products", [(4, 4, 72), (0, 4, 48), (4, 7, 48), (0, 0, 32), (7, 7, 32)])
def test_one_pixel_costs_as_many_products_as_outputs_look_at_it(row, column, products):
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, row, column] = 1
    conv = nn.Conv2d(1, 8, 3, padding=1)
    assert fan_out(conv, mask) == products
    behind = F.conv2d(mask, torch.ones(8, 1, 3, 3), padding=1)
    assert (row, column) != (4, 4) or fan_out(nn.Conv2d(8, 4, 3, padding=1), behind) == 2592


def test_a_network_of_frames_knows_what_zeros_of_a_frame_would_save():
    plain = net(noise=0.0)
    frame = plain.example_clip(1, 1)[:, 0]
    found = plain.effective_macs(frame, None)
    assert found["dense"] == step_macs(net(), net().example_clip(1, 2), 1)
    lit = int((frame != 0).sum())
    first = fan_out(plain.convs[0], (frame != 0).double())
    assert lit == 16 and 0 < first < found["spatial"] < found["dense"]


def test_rounding_passes_gradients_as_if_it_were_not():
    rounded = Quantised(0.5, (1,))
    x = torch.tensor([0.3, 0.9], requires_grad=True)
    y = rounded(x)
    assert y.tolist() == [0.5, 1.0]
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]
    # of theta: the multiple less the quotient, as the quotient's own gradient is kept
    assert float(rounded.theta.grad) == pytest.approx((1 - 0.6) + (2 - 1.8))


@pytest.mark.parametrize("reset_every", [0, 100])
def test_sums_drift_little_over_a_thousand_steps(reset_every):
    stream = delta(net().float(), theta=0.1, reset_every=reset_every)
    clip = stream.net.example_clip(1, 1001)
    outputs, _ = walked(stream, clip)
    with torch.inference_mode():
        wanted = stream.dense(clip[:, -1])
    assert float((outputs[-1] - wanted).abs().max() / wanted.abs().max()) < 1e-3


def test_the_state_is_what_was_given_and_the_sum_of_every_operator():
    _, state = walked(delta(net(), theta=0.1).double(), net().example_clip(1, 3))
    given = 16 * 16 + 4 * 8 * 8 + 8 * 4 * 4 + 8 * 4 * 4
    sums = 4 * 8 * 8 + 8 * 4 * 4 + 8 * 4 * 4 + 20
    assert numbers(state) == given + sums


def test_a_stream_that_forgets_begins_with_a_dense_frame_and_the_others_go_on():
    stream = delta(net(), theta=0.1).double()
    clip = stream.net.example_clip(2, 6)
    _, state = walked(stream, clip[:, :5])
    stream.reset(state, 0)
    with torch.inference_mode():
        output, _ = stream.step(clip[:, 5], state)
        assert float((output - stream.dense(clip[:, 5])).abs().max()) < 1e-12


def test_training_needs_a_task_and_its_loss_falls_with_fewer_changes():
    with pytest.raises(ValueError, match="task"):
        delta(net(), training_steps=3)
    with pytest.raises(ValueError, match="task"):
        l1(net(), training_steps=3)
    with pytest.raises(ValueError, match="single frames"):
        delta(nn.Linear(2, 2))
    assert isinstance(delta(net()), DeltaNet) and l1(net()).training is False


def test_frames_are_asked_for_the_digit_of_sequences_of_their_own_noise_and_motion(tmp_path):
    whole = MovingDigits(tmp_path, 0, frames=6, sequences=4)
    alone = MovingDigits(tmp_path, 0, frames=6, sequences=4)
    alone.fits(frame_cnn(classes=5, noise=0.0, motion="static"), "frames")
    (_, ways), (clips, digits) = next(whole.batches(4)), next(alone.batches(4))
    assert torch.equal(ways // 4, digits) and torch.equal(clips, clips[:, :1].expand_as(clips))
    assert alone.recipe() != whole.recipe() and alone.describe()["classes"] == 5
    alone.fits(frame_cnn(classes=5), "frames")
    moving = next(alone.batches(4))[0]
    assert not torch.equal(moving[:, 1:], moving[:, :-1])
