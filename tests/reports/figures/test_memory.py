"""Bytes of one convention against products, each over its own baseline, and the promise beside what is alive."""

from reports.figures import memory
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record


def cases(**stated):
    plain = with_readings(record(), macs=1000, peak_activation_bytes=4000, **{k: v[0] for k, v in stated.items()})
    made = [plain]
    for place, (setting, macs, alive) in enumerate((("r=1", 1100, 3000), ("r=2", 1300, 2000))):
        row = record(method="tome", setting=setting)
        values = {name: numbers[place + 1] for name, numbers in stated.items()}
        made.append(with_readings(row, macs=macs, peak_activation_bytes=alive, **values))
    return rows(*made)


def test_each_convention_is_a_view_of_ratios_to_the_baseline():
    figure = check(memory.figure(cases(engine_peak_bytes=(800, 400, 100))))
    assert list(figure.views) == ["engine (modelled)", "alive at the peak", memory.PROMISE]
    (engine,) = figure.views["engine (modelled)"]["data"]
    assert (engine["x"], engine["y"]) == ([1.1, 1.3], [0.5, 0.125])
    (alive,) = figure.views["alive at the peak"]["data"]
    assert alive["y"] == [0.75, 0.5]
    (both,) = figure.views[memory.PROMISE]["data"]
    assert (both["x"], both["y"]) == ([0.5, 0.125], [0.75, 0.5])
    assert "0.125x the bytes (engine (modelled)) for 1.30x the products" in figure.title
    assert figure.notes == ("of 2 cases that promise fewer bytes, 0 have as few alive, within a tenth",)
    assert figure.table["products (x)"].tolist() == [1.1, 1.3]


def test_a_training_step_has_what_it_saves_and_no_promise():
    figure = check(memory.figure(cases(saved_activation_bytes=(1000, 250, 100))))
    assert list(figure.views) == ["saved for the backward", "alive at the peak"] and figure.notes == ()


def test_rows_that_say_nothing_of_memory_have_no_picture():
    found = cases()
    assert not memory.wanted(found)
    assert memory.figure(found).spec is None
