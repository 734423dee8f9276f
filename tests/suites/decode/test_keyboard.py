"""Keyboard decoding: slips as described, the network's printed size, a table that agrees with a slow search."""

import math
from itertools import pairwise

import pytest
import torch

from bench.meters import macs
from bench.meters.quality import Run
from suites.common.task import TaskError
from suites.common.tasks import keyboard_lines as lines_file
from suites.common.tasks.keyboard_lines import (
    CHARACTERS,
    LETTERS,
    WORDS,
    KeyboardLines,
    Training,
    characters,
    edit_distance,
    lexicon,
    slipped,
    typed,
)
from suites.decode.keyboard import keyboard_cced, parameters
from suites.decode.keyboard_trigram import MIX, keyboard_trigram, split_words


def line_of(*words):
    return torch.tensor([characters("".join(f"{word} " for word in words))])


# ---------------------------------------------------------------- lines
def test_slips_are_neighbours_omissions_and_transpositions():
    assert slipped("qat", 0, 0, 0) == "wat"  # w is the first neighbour of q
    assert slipped("cat", 1, 1, 0) == "ct"
    assert slipped("cat", 2, 1, 0) == "cta"
    assert slipped("cat", 2, 2, 0) == "cta"  # the last letter has none behind it
    assert slipped("a", 1, 0, 0) == slipped("a", 2, 0, 0) == "a"
    assert set(lines_file.neighbours()["g"]) == set("fh") | set("rty") | set("vbn")
    assert all(key not in near for key, near in lines_file.neighbours().items())


def test_neighbours_are_mutual():
    near = lines_file.neighbours()
    assert len(near) == 26
    assert all(key in near[other] for key in near for other in near[key])


def test_a_line_without_slips_is_its_words_and_with_them_as_long_as_it_was_give_or_take_one_a_word():
    generator = torch.Generator().manual_seed(0)
    words = ["the", "value", "of", "an", "attribute", "is"]
    assert typed(words, generator, 0.0) == "the value of an attribute is "
    changed = typed(words, generator, 1.0)
    assert changed.count(" ") == WORDS
    assert sum(a != b for a, b in zip(changed.split(), words, strict=True)) >= 4
    assert len(characters(changed)) == CHARACTERS


@pytest.mark.parametrize(
    "first, second, distance",
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_edit_distances_are_the_known_ones(first, second, distance):
    assert edit_distance(first, second) == edit_distance(second, first) == distance


# ---------------------------------------------------------------- the network
def test_parameters_are_those_of_the_brief_and_the_output_layer_is_most_of_them():
    assert parameters(4000) == 1_492_448
    built = keyboard_cced(vocabulary=4000)
    assert sum(p.numel() for p in built.parameters()) == 1_492_448
    built = keyboard_cced(vocabulary=1000)
    assert sum(p.numel() for p in built.parameters()) == parameters(1000)
    tied = keyboard_cced(vocabulary=1000, tied=True)
    saved = parameters(1000) - sum(p.numel() for p in tied.parameters())
    assert saved == 257 * 1000 - (256 * 64 + 1000)


def test_words_one_by_one_are_those_that_are_forced():
    torch.manual_seed(0)
    network = keyboard_cced(vocabulary=40, hidden=16, filters=8, character=8, word=8)
    lines, words = network.example_inputs(3)[0], torch.randint(40, (3, WORDS - 1))
    with torch.no_grad():
        whole = network.forced(lines, words)
        logits, kept = network.prefill(lines)
        for place in range(WORDS - 1):
            assert torch.equal(logits, whole[:, place])
            logits, kept = network.decode(words[:, place : place + 1], kept)
        assert torch.equal(logits, whole[:, -1])
    assert network.cache_bytes(kept) == 4 * 3 * (CHARACTERS * 16 + 16)


def test_the_decoder_is_the_written_out_recurrence():
    """One step by hand: context, gates, output from state and new context."""
    torch.manual_seed(1)
    net = keyboard_cced(vocabulary=20, hidden=8, filters=8, character=8, word=8)
    lines = net.example_inputs(1)[0]
    with torch.no_grad():
        encoded = net.encoded(lines)[0]
        state = encoded[-1]

        def context(at):
            weights = torch.tensor([math.exp(float(at @ row)) for row in encoded])
            return (weights / weights.sum()) @ encoded

        given = torch.cat([net.words.weight[0], context(state)])
        cell = net.decoder
        i = cell.weight_ih_l0 @ given + cell.bias_ih_l0
        h = cell.weight_hh_l0 @ state + cell.bias_hh_l0
        reset, update = torch.sigmoid(i[:8] + h[:8]), torch.sigmoid(i[8:16] + h[8:16])
        fresh = torch.tanh(i[16:] + reset * h[16:])
        new = (1 - update) * fresh + update * state
        logits = net.out.weight @ torch.cat([new, context(new)]) + net.out.bias
        assert torch.allclose(net(lines)[0], logits, atol=1e-5)


def test_products_of_a_line_are_its_characters_and_two_looks_back_a_word():
    """N (3 c f + 3 h (f + h)) + W (3 h (e + 2 h) + 4 N h + 2 h V) at N 78, c f h e 8, V 20 and one word."""
    net = keyboard_cced(vocabulary=20, hidden=8, filters=8, character=8, word=8)
    counted = macs.count(net, net.example_inputs(1), second_count=False)
    assert counted.macs == 78 * (192 + 384) + 3 * 8 * 24 + 4 * 78 * 8 + 2 * 8 * 20 == 48_320


# ---------------------------------------------------------------- the table
def table():
    counted = keyboard_trigram(vocabulary=60, entries=500)
    counted.count_words(lines_file.parts()[0][:4000])
    return counted


def test_typed_lines_are_cut_into_their_words():
    words = split_words(line_of("the", "valeu", "of", "an", "x", "attributexxx"))[0]
    said = ["".join(chr(c) for c in row if c) for row in words.tolist()]
    assert said == ["the", "valeu", "of", "an", "x", "attributexxx"]
    short = split_words(line_of("ab", "c"))[0]
    assert short[2:].sum() == 0


def test_edits_are_the_edit_distances():
    words = lexicon(60)
    counted = table()
    for word in ("the", "teh", "atribute", "x"):
        given = torch.tensor([list(word.encode().ljust(LETTERS, b"\0"))], dtype=torch.uint8)
        found = counted.edits(given)[0].tolist()
        assert found == [edit_distance(word, other) for other in words]


def test_chances_are_shares_counted_by_hand():
    counted = table()
    numbers = {word: n for n, word in enumerate(lexicon(60)) if n}
    ids = [numbers.get(word, 0) for word in lines_file.parts()[0][:4000]]
    a, b = ids[100], ids[101]
    triples = [c for x, y, c in zip(ids, ids[1:], ids[2:], strict=False) if (x, y) == (a, b)]
    pairs = [c for y, c in pairwise(ids) if y == b]
    kept3 = {int(k): int(n) for k, n in zip(counted.triple_keys, counted.triple_counts, strict=True)}
    kept2 = {int(k): int(n) for k, n in zip(counted.pair_keys, counted.pair_counts, strict=True)}
    seen3 = [kept3.get((a * 60 + b) * 60 + c, 0) for c in range(60)]
    seen2 = [kept2.get(b * 60 + c, 0) for c in range(60)]
    assert all(n in (0, triples.count(c)) for c, n in enumerate(seen3))
    assert all(n in (0, pairs.count(c)) for c, n in enumerate(seen2))
    found = counted.log_chance(torch.tensor([[a, b]]))[0].exp()
    for c in range(60):
        wanted = MIX[0] * seen3[c] / max(1, sum(seen3)) + MIX[1] * seen2[c] / max(1, sum(seen2))
        wanted += MIX[2] * ids.count(c) / len(ids) + MIX[3] / 60
        assert found[c] == pytest.approx(wanted, rel=1e-4)
    assert found.sum() <= 1 + 1e-4


def test_a_typed_line_without_slips_is_read_as_it_stands():
    words = lexicon(60)
    line = [words[3], words[10], words[1], words[20], words[5], words[7]]
    counted = table()
    counted.distance = 50.0
    found = lines_file.written_words(counted, line_of(*line))[0].tolist()
    assert [words[n] for n in found] == line


# ---------------------------------------------------------------- the task
def test_both_sides_are_prepared_loaded_and_scored_on_the_same_lines(tmp_path):
    task = KeyboardLines(tmp_path, 0, training=Training(steps=2, batch=4), lines=4)
    digests = set()
    for name, build in (
        ("cced", lambda: keyboard_cced(vocabulary=50, hidden=16, filters=8, character=8, word=8)),
        ("trigram", lambda: keyboard_trigram(vocabulary=50, entries=300)),
    ):
        torch.manual_seed(0)
        task.prepare(name, build)
        module = build()
        task.load(module, name)
        with torch.inference_mode():
            found = task.score(Run(module, batch=3))
        digests.add(found.samples_digest)
        assert found.n == 4 and found.also[0].n == 4 * WORDS
    assert len(digests) == 1
    with pytest.raises(TaskError, match="keyboard_cced"):
        task.fits(torch.nn.Linear(1, 1), "linear")
    with pytest.raises(TaskError, match="lines"):
        KeyboardLines(tmp_path, 0, lines=0)


def test_a_perfect_writer_makes_no_error(tmp_path):
    task = KeyboardLines(tmp_path, 0, lines=3)
    task.vocabulary = 3000
    wanted = [row for _, words in task.batches(1) for row in words]

    class Perfect:
        writes_words, vocabulary, place = True, 3000, -1

        def prefill(self, ids):
            self.place, self.word = self.place + 1, 0
            return self.say(), None

        def decode(self, ids, cache):
            self.word += 1
            return self.say(), None

        def say(self):
            return torch.nn.functional.one_hot(wanted[self.place][self.word][None], 3000).float()

    found = task.score(Run(Perfect(), batch=1))
    unknown = sum(int(n == 0) for row in wanted for n in row)
    assert unknown or found.value == 0
    assert found.also[0].value == pytest.approx(100 * (1 - unknown / (3 * WORDS)))
