import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.figures.figure import Control, Figure, no_picture, percent, rounded, significant
from reports.figures.theme import COLOURS, CONFIG, family_styles, log_axis, palettes, plain, themed


def test_a_figure_has_a_picture_or_a_reason_and_not_both():
    empty = pd.DataFrame()
    with pytest.raises(ValueError, match="picture or the reason"):
        Figure("x", "t", "h", empty)
    with pytest.raises(ValueError, match="picture or the reason"):
        Figure("x", "t", "h", empty, {"": {}}, reason="but why")
    assert no_picture("x", "t", "h", "why").spec is None


def test_views_are_found_by_what_is_chosen():
    views = {"a · 1": {"data": [], "layout": {}}, "b · 1": {"data": [], "layout": {"x": 1}}}
    figure = Figure("x", "t", "h", pd.DataFrame(), views, (Control("A", ("a", "b")), Control("B", ("1", "2"))))
    assert figure.spec is views["a · 1"] and figure.view("b", "1") is views["b · 1"] and figure.view("b", "2") is None


def test_shared_hover_texts_are_filled_in():
    trace = {"type": "bar", "meta": "hover", "customdata": [[0, 1], [1, 0]]}
    figure = Figure("x", "t", "h", pd.DataFrame(), {"": {"data": [trace], "layout": {}}}, hover=("p", "q"))
    assert figure.drawn()["data"][0]["hovertext"] == ["q", "p"]
    assert "hovertext" not in trace


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        (0, "0"),
        (1234.5, "1230"),
        (12.34, "12.3"),
        (0.012345, "0.0123"),
        (1e-12, "1.00e-12"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert significant(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "n/a"), (0.375, "38 %"), (1.043, "104 %"), (0.012, "1.2 %")])
def test_percentages_keep_whole_percents_and_never_turn_missing_into_zero(value, text):
    assert percent(value) == text


@given(st.floats(1e-9, 1e9))
def test_rounding_for_the_screen_is_invisible(value):
    assert rounded([value])[0] == pytest.approx(value, rel=1e-4)


def test_colour_roles_are_replaced_under_colour_keys_only():
    spec = {"marker": {"color": ["@ink", "@blue"], "line": {"color": "@ink"}}, "name": "@ink", "text": ["@blue"]}
    light = themed(spec, "light")
    assert light["marker"]["color"] == [COLOURS["@ink"][0], COLOURS["@blue"][0]]
    assert light["name"] == "@ink" and light["text"] == ["@blue"]
    assert themed(spec, "dark")["marker"]["line"]["color"] == COLOURS["@ink"][1]
    assert spec["marker"]["color"] == ["@ink", "@blue"]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_the_first_series_stand_out_from_the_paper(theme):
    colours = palettes()[theme]

    def contrast(role):
        high, low = sorted((luminance(colours[role]), luminance(colours["@paper"])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert contrast("@ink") > 7 and contrast("@quiet") > 4.5
    assert all(contrast(role) > 2.9 for role in ("@blue", "@vermillion", "@green", "@purple"))


def test_a_method_looks_the_same_whatever_else_is_shown_in_the_site():
    styles = family_styles(["tome", "none", "evit", "tome"])
    assert styles["none"].colour == "@ink" and styles["evit"] != styles["tome"]
    assert styles == family_styles(["evit", "tome"])
    assert len(set(family_styles(f"m{i:02}" for i in range(24)).values())) == 25


def test_names_cannot_become_markup():
    assert plain('<a href="x">&\n</a>') == '&lt;a href="x"&gt;&amp; &lt;/a&gt;'


@given(st.floats(1e-6, 1e6), st.floats(1.0, 1e6))
def test_log_axes_hold_their_data_and_a_tick(low, ratio):
    made = log_axis("x (ms)", low, low * ratio)
    start, end = (10**edge for edge in made["range"])
    assert start < low and end > low * ratio
    assert all(start <= tick <= end for tick in made["tickvals"])
    assert len(made["ticktext"]) == len(made["tickvals"]) <= 16


def test_nothing_is_ever_uploaded():
    assert CONFIG["showSendToCloud"] is False and CONFIG["displaylogo"] is False
    assert CONFIG["toImageButtonOptions"]["format"] == "svg" and CONFIG["responsive"] is True


def test_several_models_that_others_are_compared_with_are_black_and_told_apart():
    styles = family_styles(["small", "wide", "deep", "none"], ["small", "wide"])
    assert {styles[name].colour for name in ("small", "wide", "none")} == {"@ink"} != {styles["deep"].colour}
    assert styles["none"].symbol == styles["small"].symbol == "circle" != styles["wide"].symbol
