"""Rows of whole-number products say what adds them; a processor without such units is flagged."""

import pytest

from bench.host.int8_units import flags_of, int8_units


@pytest.mark.parametrize(
    "text, found",
    [
        ("flags\t\t: fpu avx2 avx512_vnni amx_int8\n", ("avx512_vnni", "amx_int8")),
        ("flags\t\t: fpu avx2 avx512_vnni_not\n", ()),
        ("processor: 0\n", None),
    ],
)
def test_units_are_read_from_the_flags_of_the_processor(tmp_path, text, found):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert int8_units(path) == found


def test_a_missing_file_is_not_known(tmp_path):
    assert int8_units(tmp_path / "none") is None


def test_only_whole_number_rows_on_x86_processors_are_flagged():
    assert [f["code"] for f in flags_of("real-int", "cpu", (), "x86_64")] == ["int8_saturates"]
    assert [f["code"] for f in flags_of("real-int", "cpu", None, "AMD64")] == ["int8_saturates"]
    assert [f["severity"] for f in flags_of("real-int", "cpu", ("avx_vnni",), "x86_64")] == ["info"]
    assert flags_of("real", "cpu", (), "x86_64") == flags_of("real-int", "cuda", (), "x86_64") == []
    assert flags_of("real-int", "cpu", (), "aarch64") == []
