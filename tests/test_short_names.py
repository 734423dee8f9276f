"""A long setting has one short name wherever there is little room; two that differ keep different names."""

from bench.plan.case import Case
from bench.short_names import short_name, short_names

FIRST = "diffrate(merge=[197, 194, 176, 156, 3], prune=[197, 196, 190, 168, 3])"
OTHER = "diffrate(merge=[197, 190, 176, 156, 3], prune=[197, 196, 190, 168, 3])"


def test_a_long_list_is_shown_by_its_ends_and_a_short_one_is_written_out():
    assert short_name(FIRST) == "diffrate(merge=[197 … 3], prune=[197 … 3])"
    assert short_name("evit(at=[4, 7, 10, 12])") == "evit(at=[4, 7, 10, 12])"
    assert short_name("tome(r=13)") == "tome(r=13)"


def test_names_that_would_come_out_alike_show_what_tells_them_apart():
    short = short_names([FIRST, OTHER, FIRST, "tome(r=13)"])
    assert short[FIRST] == "diffrate(merge=[197, 194 … 3], prune=[197, 196 … 3])"
    assert short[OTHER] == "diffrate(merge=[197, 190 … 3], prune=[197, 196 … 3])"
    assert short["tome(r=13)"] == "tome(r=13)" and len(set(short.values())) == 3


def test_a_name_that_cannot_be_shortened_apart_is_left_whole():
    names = ["m(a=[1, 2, 3, 4, 5, 6])", "m(a=[1, 2, 3, 4, 9, 6])"]
    assert sorted(short_names(names).values()) == sorted(names)


def test_the_conditions_of_a_case_stay():
    case = Case(suite="s", model="deit_small", method="diffrate", setting="merge=[5, 4, 3, 2, 1]", resolution=224)
    assert short_name(case.label) == "deit_small · diffrate(merge=[5 … 1]) · 224px · batch 1"
