"""Bits of a cached number: the paper's name for them beside what is stored, and nothing where the cache is plain."""

from reports.figures import cache_bits
from tests.reports.figures.rows import rows, with_readings
from tests.reports.figures.specs import check
from tests.synthetic import record


def made(*methods):
    plain = with_readings(record(), kv_bits_nominal=32, kv_bits_stored=32)
    return rows(
        plain,
        *(
            with_readings(record(method=name), kv_bits_nominal=nominal, kv_bits_stored=stored)
            for name, nominal, stored in methods
        ),
    )


def test_a_line_goes_from_the_name_to_what_is_stored_and_plain_caches_are_left_out():
    figure = check(cache_bits.figure(made(("vidkv", 1.54, 3.25), ("uniform", 4, 5), ("window", 32, 32))))
    assert [name.split(" · ")[-1] for name in figure.table["case"]] == ["vidkv", "uniform"]
    assert figure.table["stored bits"].tolist() == [3.25, 5]
    assert figure.title.endswith("vidkv: 1.54 nominal bits are stored as 3.25")


def test_where_every_cache_is_plain_there_is_no_figure():
    found = made(("window", 32, 32))
    assert not cache_bits.wanted(found)
    assert "plain cache" in cache_bits.figure(found).reason
