"""pulse: rates are those of the signal, who knows them makes no error, a stream is scored at its own steps."""

import pytest
import torch
from torch import nn

from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks import pulse
from suites.common.tasks.pulse import MIDDLE, RATE_HZ, SPREAD, Pulse, Training
from suites.streaming.series import acc, ppg

QUICK = {"training": Training(steps=2, batch=2), "seconds": 14}


def test_the_answer_is_the_mean_rate_of_the_last_eight_seconds():
    signal, rate = pulse.signals(4, 64 * RATE_HZ, 3)
    assert signal.shape == (4, 1, 2048) and rate.shape == (4, 2048)
    assert float(rate.min()) >= 48 - 1e-3 and float(rate.max()) <= 180 + 1e-3
    spectrum = torch.fft.rfft(signal[:, 0, -256:] * torch.hann_window(256)).abs()
    # the strongest of the low frequencies is within the band around the fundamental, an eighth of a Hz wide
    found = 60.0 * spectrum[:, 5:28].argmax(1).add(5) * RATE_HZ / 256
    assert float((found - rate[:, -1]).abs().median()) < 12


class Knows(nn.Module):
    """Answers what the task says, plus an error, from the sixth step on."""

    hop, transient = 64, 5

    def __init__(self, rates, wrong):
        super().__init__()
        self.rates, self.wrong = rates, wrong

    def init(self, batch):
        return 0

    def step(self, x, state):
        rate = self.rates[:, (state + 1) * self.hop - 1]
        return (((rate + self.wrong - MIDDLE) / SPREAD)[:, None] if state >= 4 else None), state + 1


@pytest.mark.parametrize("wrong", [0.0, 3.0])
def test_who_knows_the_rate_is_wrong_by_what_is_added(tmp_path, wrong):
    task = Pulse(tmp_path, 0, **QUICK)
    rates = torch.cat([rate for _, rate in task.batches(64)])
    found = task.score(Run(Knows(rates, wrong), batch=64))
    assert found.value == pytest.approx(wrong, abs=1e-4) and found.n == pulse.HELD_OUT
    assert len(found.details["curve"]) == 14 * 32 // 64 - 5  # answers before the transient are not scored


def test_a_network_of_windows_learns_from_signals_and_is_loaded_at_any_hop(tmp_path):
    task = Pulse(tmp_path, 0, **QUICK)
    torch.manual_seed(0)
    notes = task.prepare("ppg", lambda: ppg(window=64))
    task.load(ppg(window=64, hop=16), "ppg")
    assert notes["test_rate_error"] > 0
    with pytest.raises(TaskError, match="pulse is for ppg"):
        task.fits(acc(), "acc")
