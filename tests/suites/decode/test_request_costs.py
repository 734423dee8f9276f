"""What requests cost: searches, shorter answers, and what a method runs beside the model."""

from dataclasses import replace

import pytest
import torch

from bench.meters import macs
from suites.common.decoder import decoder
from suites.common.decoder_shape import head_macs, linear_macs, macs_decode_step, macs_request, position_macs
from suites.common.decoder_shapes import shape_of
from suites.common.speculation import greedy
from suites.decode import early_rejection as file
from suites.decode.drpo import drpo, shortened
from suites.decode.early_rejection import search
from suites.decode.kv_prediction import kv_prediction, macs_first_token
from suites.decode.mtp import mtp
from suites.decode.r_sparse import RSparseLinear, executed_macs, r_sparse
from tests.suites.decode.walking import small

MARK, END = 0, 1


class Writer:
    """Steps of four tokens, three of them to an answer; each beam's quality is written in its tokens."""

    def __init__(self, length=4, steps=3):
        self.length, self.steps, self.drawn = length, steps, 0

    def extend(self, prefixes, limit):
        return [self._one(ids, limit) for ids in prefixes]

    def _one(self, ids, limit):
        out = list(ids)
        for _ in range(limit):
            place = sum(1 for i in out[1:])
            if (place + 1) % self.length == 0:
                last = (place + 1) // self.length == self.steps
                out.append(END if last else MARK)
                break
            self.drawn += 1
            out.append(2 + (7 * self.drawn) % 50)
        return tuple(out)


def quality(prefixes):
    return [float(sum(ids[1:])) / max(1, len(ids) - 1) for ids in prefixes]


@pytest.mark.parametrize("beams, branch", [(4, 2), (8, 4), (16, 4)])
def test_tokens_are_those_of_the_idealised_formula(beams, branch):
    plain = search((9,), Writer().extend, quality, mark=MARK, end=END, beams=beams, branch=branch, step_tokens=4)
    early = search((9,), Writer().extend, quality, mark=MARK, end=END, beams=beams, branch=branch, tau=2, step_tokens=4)
    assert plain.steps == early.steps == 3
    assert plain.generated == 3 * file.plain_tokens(beams, 4)
    assert early.generated == 3 * file.early_tokens(beams, branch, 4, 2)
    assert plain.scored == beams * (4 + 8 + 12)


def test_tau_of_a_whole_step_is_the_plain_search():
    plain = search((9,), Writer().extend, quality, mark=MARK, end=END, beams=8, branch=4, step_tokens=4)
    late = search((9,), Writer().extend, quality, mark=MARK, end=END, beams=8, branch=4, tau=4, step_tokens=4)
    assert plain == late


def test_the_answer_is_finished_and_the_best_of_those_that_are_left():
    found = search((9,), Writer().extend, quality, mark=MARK, end=END, beams=8, branch=4, tau=1, step_tokens=4)
    assert found.ids[-1] == END and len(found.ids) == 13
    assert found.reward == quality([found.ids])[0]


def test_the_formulas_are_those_of_the_brief():
    assert file.plain_tokens(16, 256) == 4096
    assert file.early_tokens(16, 4, 256, 64) == 1792
    assert round(4096 / 1792, 4) == 2.2857
    assert file.ideal_correlation(256, 64) == 0.5
    assert file.risk_bound(4, 100.0, 1.0) < 1e-9 and file.risk_bound(4, 0.0, 1.0) == 1.0
    with pytest.raises(ValueError, match="not a multiple"):
        search((9,), Writer().extend, quality, mark=MARK, end=END, beams=6, branch=4)


def test_a_shorter_answer_costs_what_the_brief_says():
    shape = shape_of("qwen2_1_5b")
    assert macs_request(shape, 128, 460) == 891_980_390_400
    cost = shortened(shape, prompt=128, new=2000, reduction=0.77, peak_ops=1e12, bandwidth=1e11)
    assert cost.tokens_after == 460 and cost.macs_after == 891_980_390_400
    assert round(cost.share, 4) == 0.2586
    assert 0.2 < cost.seconds_after / cost.seconds_before < 0.24
    with pytest.raises(ValueError, match="leaves nothing"):
        shortened(shape, prompt=8, new=2, reduction=1.0, peak_ops=1e12, bandwidth=1e11)


@pytest.mark.parametrize("reduction, left", [(0.0, 10), (0.5, 5), (0.77, 2), (1.0, 1)])
def test_a_shorter_answer_is_the_beginning_of_the_plain_one(reduction, left):
    torch.manual_seed(0)
    plain = decoder(width=32, layers=2, heads=2, hidden=24)
    ids = torch.randint(256, (2, 7))
    with torch.no_grad():
        whole, short = greedy(plain, ids, 10), drpo(plain, reduction=reduction)
        found = short.write(ids, 10)
    assert torch.equal(found[:, :left], whole[:, :left])
    assert not found[:, left:].any()
    assert short.written() == {"tokens_written": 2.0 * left}
    assert short.execution == "simulated"


def counted(model, call, *args):
    """Products and those of the method's own choices, as a row has them."""

    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, *given):
            return call(*given)

    with torch.no_grad():
        found = macs.count(Part(), args, second_count=False, inspect_values=False, self_check=False)
    return found.macs, found.method_macs


def test_what_a_method_runs_for_the_answer_is_among_the_products_of_its_row():
    """An auxiliary model, a residue and a drafting block decide nothing: they are the work."""
    ids = torch.randint(61, (1, 20))
    shape = small().shape

    predicted = kv_prediction(small(), keep_layers=[0])
    wanted = macs_first_token(shape, replace(shape, layers=shape.layers[:1]), [0, 0], 20)
    assert counted(predicted, lambda x: predicted.prefill(x)[0], ids) == (wanted, 0)

    model = r_sparse(small(), calibration_tokens=64)
    with torch.no_grad():
        _, cache = model.prefill(ids)
        model.decode(ids[:, :1], cache)
    products, own = counted(model, lambda x: model.decode(x, cache)[0], ids[:, :1])
    attended = 21 * sum(position_macs(layer) for layer in shape.layers) + head_macs(shape)
    assert (products, own) == (executed_macs(model) + attended, 0) and any(m.rank for m in maps_of(model))

    drafting = mtp(small())
    with torch.no_grad():
        _, cache = drafting.prefill(ids)
    block = linear_macs(replace(shape, layers=shape.layers[-1:])) + 20 * position_macs(shape.layers[-1])
    wanted = macs_decode_step(shape, 21) + block + 2 * shape.width**2 + head_macs(shape)
    assert counted(drafting, lambda x: drafting.decode(x, cache)[0], ids[:, :1]) == (wanted, 0)


def maps_of(model):
    return [module for module in model.modules() if isinstance(module, RSparseLinear)]
