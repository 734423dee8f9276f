"""Bits per byte: a uniform guesser needs eight, what is known costs nothing, and a cache says the same as one pass."""

import hashlib
import json
import math

import pytest
import torch
from torch import nn

from bench.meters import quality
from suites.common.decoder import decoder
from suites.common.task import TaskError
from suites.common.tasks.text_bytes import TextBytes, Training, python_topics
from suites.common.tasks.textfile import TextFile


class Fixed(nn.Module):
    """Says the same distribution after every byte; as one pass."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


def tiny():
    torch.manual_seed(0)
    return decoder(width=16, layers=1, heads=2, hidden=32)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"abcd" * 500)
    return path


def text_file(file, tmp_path, **options):
    return TextFile(
        tmp_path / "cache", 0, root=str(file), prompt=8, **{"training": Training(length=16, steps=3), **options}
    )


def test_the_text_is_python_s_own_in_the_order_of_its_keys(tmp_path):
    from pydoc_data.topics import topics

    assert python_topics() == b"".join(topics[key].encode() for key in sorted(topics))
    told = TextBytes(tmp_path, 0).describe()
    assert told["digest"] == hashlib.sha256(python_topics()).hexdigest()[:16] and told["bytes"] == len(python_topics())
    assert told["held_out_bytes"] == int(0.1 * told["bytes"]) and "pydoc_data.topics of Python 3" in told["source"]
    assert json.dumps(told)


def test_what_is_held_out_is_not_learned_from_and_every_byte_of_it_is_scored_once(file, tmp_path):
    task = text_file(file, tmp_path)
    learnt, held_out = task.parts()
    assert (len(learnt), len(held_out)) == (1800, 200)
    scored = task.pieces()[:, 8:].flatten()
    assert torch.equal(scored, held_out[8 : 8 + len(scored)]) and len(held_out) - 8 - len(scored) < 8


def test_of_a_long_text_pieces_at_even_distances_are_scored(tmp_path):
    every, some = TextBytes(tmp_path, 0, scored=None).pieces(), TextBytes(tmp_path, 0, scored=10).pieces()
    assert len(every) > 300 and len(TextBytes(tmp_path, 0).pieces()) == 64
    assert torch.equal(some, every[[len(every) * i // 10 for i in range(10)]])
    with pytest.raises(TaskError, match="at least one piece"):
        TextBytes(tmp_path, 0, scored=0)


def test_a_uniform_guesser_needs_eight_bits(file, tmp_path):
    found = quality.measure(Fixed(torch.zeros(256)), text_file(file, tmp_path))
    assert (found.metric, found.value) == ("bits_per_byte", pytest.approx(8.0))
    assert found.n == len(text_file(file, tmp_path).pieces()) and found.details["how"] == "one pass"


def test_a_fixed_distribution_needs_its_cross_entropy(file, tmp_path):
    logits = torch.full((256,), -50.0)
    for place, letter in enumerate(b"abcd"):
        logits[letter] = float(place)
    wanted = -logits.log_softmax(0)[list(b"abcd")].mean() / math.log(2)
    assert quality.measure(Fixed(logits), text_file(file, tmp_path)).value == pytest.approx(float(wanted), rel=1e-5)


def test_through_the_cache_and_in_one_pass_are_the_same_number(file, tmp_path):
    task, model = text_file(file, tmp_path), tiny().eval()
    cached = quality.measure(model, task, batch=7)

    class OnePass(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = model

        def forward(self, ids):
            return self.inside(ids)

    once = quality.measure(OnePass(), task)
    assert cached.value == pytest.approx(once.value, rel=1e-5)
    assert cached.samples_digest == quality.measure(model, task, batch=7).samples_digest
    assert "byte by byte" in cached.details["how"]


def test_a_logit_of_minus_infinity_is_fine_unless_it_is_the_byte_that_comes(file, tmp_path):
    logits = torch.zeros(256)
    logits[0] = -math.inf
    assert quality.measure(Fixed(logits), text_file(file, tmp_path)).value == pytest.approx(math.log2(255))
    logits[ord("c")] = -math.inf
    with pytest.raises(quality.NonFiniteOutput, match="bits per byte is not reported"):
        quality.measure(Fixed(logits), text_file(file, tmp_path))


def test_training_is_remembered_and_the_weights_come_back(file, tmp_path):
    task = text_file(file, tmp_path, training=Training(length=32, steps=30, rate=1e-2))
    notes = task.prepare("tiny", tiny)
    assert notes["test_bits_per_byte"] < 4
    module = tiny()
    again = text_file(file, tmp_path, training=Training(length=32, steps=30, rate=1e-2))
    assert again.load(module, "tiny")["sha256"] == notes["sha256"] and module.task is again
    assert quality.measure(module, again).value == pytest.approx(notes["test_bits_per_byte"])


def test_a_user_s_weights_are_scored_on_the_whole_file(file, tmp_path):
    from safetensors.torch import save_file

    save_file(tiny().state_dict(), tmp_path / "w.safetensors")
    task = text_file(file, tmp_path, checkpoint=str(tmp_path / "w.safetensors"))
    assert task.prepare("tiny", tiny)["recipe"] == {"kind": "the user's checkpoint"}
    assert task.describe()["split"] == "the whole file" and len(task.pieces()) == 249


@pytest.mark.parametrize(
    "content, options, why", [(b"short", {}, "needs more than"), (b"x" * 2000, {"prompt": 0}, "prompt=0")]
)
def test_a_text_that_is_too_short_is_refused(tmp_path, content, options, why):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(TaskError, match=why):
        TextFile(tmp_path, 0, root=str(tmp_path / "t.txt"), **options)


def test_a_file_that_is_not_there_and_a_model_of_words_are_refused(file, tmp_path):
    with pytest.raises(TaskError, match="is not a file"):
        TextFile(tmp_path, 0, root=str(tmp_path))
    words = tiny()
    words.vocabulary = 32000
    with pytest.raises(TaskError, match="vocabulary of 32000"):
        text_file(file, tmp_path).load(words, "words")


@pytest.mark.slow
def test_the_house_decoder_learns_the_text(tmp_path):
    def build():
        torch.manual_seed(0)
        return decoder(width=192, layers=6, heads=6, hidden=512)

    assert TextBytes(tmp_path, 0).prepare("byte_3m", build)["test_bits_per_byte"] < 3.6
