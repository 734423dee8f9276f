"""Scenes, their ids and their questions say what they claim."""

import pytest
import torch

from bench.meters.quality import Run
from suites.common import digit_scenes as scenes
from suites.common import digits_data as data
from suites.common.scene_learning import Training, answered, loss_of, teach
from suites.common.task import TaskError
from suites.common.tasks.digit_scenes import DigitScenes, drawn, example_prompts, intersection_over_union, kept_summary
from suites.vlm_tokens.controls import uniform


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("patch", "views"), [(4, 1), (2, 1), (4, 4)])
def test_ids_hold_every_pixel(patch, views):
    made = scenes.scenes(3, data.split()[0], generator())
    ids = scenes.packed(made.levels, patch, views)
    assert ids.shape == (3, (32 // patch) ** 2)
    pixels = (scenes.unpacked(ids, patch, torch.float64) * 0.3 + 0.15) * 15
    cells, offsets = scenes.cell_of(patch, views), scenes.offset_of(patch, views)
    for token in (0, 5, 17, 63):
        row, column = divmod(int(cells[token]), 4)
        down, right = divmod(int(offsets[token]), 8 // patch)
        top, left = row * 8 + down * patch, column * 8 + right * patch
        wanted = made.levels[1, top : top + patch, left : left + patch].flatten().double()
        torch.testing.assert_close(pixels[1, token], wanted)


def test_cells_show_what_they_say():
    made = scenes.scenes(40, data.split()[0], generator())
    ink = made.levels.reshape(40, 4, 8, 4, 8).sum(dim=(2, 4))
    assert ((ink > 0) == (made.cells != scenes.NONE)).all()
    assert 0.4 < (made.cells != scenes.NONE).float().mean() < 0.6


def test_questions_are_answered_by_the_cells():
    made = scenes.scenes(60, data.split()[0], generator())
    place = scenes.position_questions(made, generator(1))
    rows, columns = place.words[:, 1] - scenes.ROW, place.words[:, 2] - scenes.COLUMN
    assert torch.equal(place.answers, made.cells[torch.arange(60), rows, columns])
    number, search = scenes.count_questions(made, generator(2)), scenes.search_questions(made, generator(3))
    for index in range(60):
        digit = number.words[index, 1]
        assert number.answers[index] == (made.cells[index] == digit).sum()
        first = next(row for row in range(4) if search.words[index, 1] in made.cells[index, row])
        assert search.answers[index] == scenes.ROW + first
    words, cells = scenes.mask_questions(made, generator(4))
    assert torch.equal(cells, made.cells.flatten(1) == words[:, 1:2]) and cells.any(dim=1).all()
    words, cells = scenes.placed_mask_questions(made, generator(5))
    assert (words[:, 0] == scenes.MASK_AT).all() and (words[:, 3] == scenes.SEGMENT).all()
    for index in range(60):
        meant = made.cells[index, words[index, 1] - scenes.ROW, words[index, 2] - scenes.COLUMN]
        assert meant != scenes.NONE and torch.equal(cells[index], made.cells[index].flatten() == meant)


def test_masks_are_asked_for_by_name_or_by_place(make):
    for kind, word in (("scene", scenes.MASK_OF), ("places", scenes.MASK_AT)):
        batch = drawn(make(kind), 4, data.split()[0], generator())
        assert (batch.mask[0][:, 0] == word).all()
        assert [asked.kind for asked in batch.questions] == ["position", "count", "search"]


def test_a_pointer_wraps_around():
    moves = torch.tensor([[scenes.DOWN, scenes.DOWN], [scenes.UP, scenes.LEFT]])
    assert scenes.pointer_after(torch.tensor([3, 0]), moves).tolist() == [1, 3]


def test_a_screen_shows_what_is_asked_of_it(make):
    module = make("screens")
    made = drawn(module, 20, data.split()[0], generator())
    assert made.head.shape == (20, 2 + 3 * 64 + 2) and made.cells.shape == (20, 3, 16)
    for asked, screen in zip(made.questions[::2], (2, 1), strict=True):
        cell = (asked.words[:, 1] - scenes.ROW) * 4 + asked.words[:, 2] - scenes.COLUMN
        assert torch.equal(asked.answers, made.cells[torch.arange(20), screen, cell])
    moves = made.head[:, [2 + 64, 2 + 64 + 65]]
    start = made.head[:, 1] - scenes.ROW
    assert torch.equal(made.questions[1].answers, scenes.ROW + scenes.pointer_after(start, moves))


def test_held_out_scenes_are_the_same_each_time_and_a_score_stands_by_type(make, tmp_path):
    task = DigitScenes(tmp_path, 0)
    task.fits(make(), "scene_64")
    first, second = (list(task.batches(50)) for _ in range(2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
    score = task.score(Run(make(layers=1)))
    assert score.n == 600 and set(score.details["by_question"]) == {"position", "count", "search"}
    assert sum(part["value"] for part in score.details["by_question"].values()) / 3 == pytest.approx(score.value)
    by_row = score.details["by_row"]  # of the 200 questions for a position
    assert list(by_row) == ["0", "1", "2", "3"] and sum(part["n"] for part in by_row.values()) == 200
    right = sum(part["n"] * part["value"] for part in by_row.values()) / 200
    assert right == pytest.approx(score.details["by_question"]["position"]["value"])


def test_a_score_says_how_many_tokens_were_left_and_where_they_stood(make, tmp_path):
    """Every fourth of 64: places 0, 4, ... 60, whose mean is 30."""
    task, reduced = DigitScenes(tmp_path, 0, judged="search"), uniform(make(layers=1), keep=0.25)
    task.fits(reduced, "scene_64")
    assert task.score(Run(reduced)).details["kept"] == {
        "place_mean": 30.0, "tokens_mean": 16.0, "tokens_min": 16.0, "tokens_max": 16.0,
    }  # fmt: skip
    plain = make(layers=1)
    task.fits(plain, "scene_64")
    assert "kept" not in task.score(Run(plain)).details
    few = kept_summary([torch.tensor([0, 2, 4]), torch.tensor([10])])
    assert few == {"place_mean": 4.0, "tokens_mean": 2.0, "tokens_min": 1.0, "tokens_max": 3.0}
    assert kept_summary([torch.empty(0)])["place_mean"] is None


def test_masks_are_scored_by_their_intersection_over_union(make, tmp_path):
    found = torch.tensor([[True, True, False, False], [False] * 4])
    true = torch.tensor([[True, False, True, False], [False] * 4])
    assert intersection_over_union(found, true).tolist() == pytest.approx([1 / 3, 1.0])
    task = DigitScenes(tmp_path, 0, judged="masks")
    task.fits(make(), "scene_seg")
    assert task.score(Run(make(layers=1))).metric == "mean_iou"


def test_a_model_of_another_kind_is_refused(make, tmp_path):
    with pytest.raises(TaskError, match="no question for a mask"):
        DigitScenes(tmp_path, 0, judged="masks").fits(make("screens"), "scene_screens")
    with pytest.raises(TaskError, match="reads no scenes"):
        DigitScenes(tmp_path, 0).fits(torch.nn.Linear(2, 2), "linear")


def test_example_prompts_end_with_a_question(make):
    ids = example_prompts(make(), 2, 0)
    assert ids.shape == (2, 69) and (ids[:, -1] == scenes.ASK).all() and (ids[:, 0] == scenes.BEGIN).all()


@pytest.mark.parametrize("kind", ["scene", "views", "screens"])
def test_a_few_steps_of_training_lower_the_loss(kind):
    from suites.common.scene_reader import scene_reader

    torch.manual_seed(0)
    module = scene_reader(width=24, heads=2, hidden=32, depth=1, layers=2, kind=kind)
    batch = drawn(module, 8, data.split()[0], generator(), repeats=2)
    with torch.enable_grad():
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
        losses = []
        for _ in range(6):
            loss = loss_of(module, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_the_last_word_of_a_question_holds_the_question(make):
    module = make()
    ids = example_prompts(module, 2, 0)
    behind = module.words(ids)[-1]
    torch.testing.assert_close(behind[:, -1], module.decoder.embed(ids[:, -4:]).sum(dim=1))


@pytest.mark.parametrize("kind", ["scene", "views", "screens"])
def test_questions_of_one_pass_are_answered_as_if_each_were_asked_alone(make, kind):
    module = make(kind)
    batch = drawn(module, 3, data.split()[0], generator(), repeats=2)
    words = torch.stack([question.words for question in batch.questions], dim=1)
    _, together = answered(module, batch.head, words)
    for place in range(words.shape[1]):
        ids = torch.cat([batch.head, words[:, place]], dim=1)
        torch.testing.assert_close(together[:, place], module.features(ids)[:, -1], rtol=1e-4, atol=1e-5)


def test_reading_is_learned_by_tower_and_projector_alone_and_then_everything_learns(make):
    how = Training(reading_steps=2, steps=0, batch=2, repeats=1)
    module = make(layers=1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.enable_grad():
        assert teach(module, how, (drawn(module, 2, data.split()[0], generator()) for _ in range(2))) == []
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert "projector.linear.weight" in changed and "tower.embed" in changed
    assert all(name.startswith(("tower.", "projector.linear.")) for name in changed)
    assert all(p.requires_grad for p in module.parameters())
    with torch.enable_grad():
        more = (drawn(module, 2, data.split()[0], generator()) for _ in range(3))
        assert len(teach(module, Training(reading_steps=1, steps=2, batch=2, repeats=1), more)) == 2
    assert not torch.equal(module.decoder.head.weight, before["decoder.head.weight"])


def test_a_word_finds_its_equal_in_the_picture_before_it_finds_itself(make):
    module = make(width=96, heads=4)
    attention, words = module.decoder.blocks[0].attention, module.decoder.embed.weight
    row, column = module.projector.row[1], module.projector.column[2]
    word = words[scenes.ROW + 1] + words[scenes.COLUMN + 2]
    query, itself = attention.q(word), attention.k(word)
    place, other = attention.k(row + column), attention.k(module.projector.row[3] + module.projector.column[0])
    assert query @ place > query @ itself and query @ place > 3 * (query @ other).abs()
