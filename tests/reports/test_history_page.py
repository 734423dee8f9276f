"""The page of the history: a line per case over its sessions, what is worse on top with the day since when."""

import pytest

from reports.site import build, load
from tests.analysis.test_history import folders

pytest.importorskip("ruptures", reason="changes of level need the extra history: pip install ruptures")


def test_the_page_has_a_line_per_case_and_the_regression_with_its_day(tmp_path):
    places = folders(tmp_path, [1.5] * 4 + [1.2] * 4)
    build(places, tmp_path / "site")
    text = (tmp_path / "site" / "history.html").read_text()
    assert "1 of 1 line is worse than before" in text and "2026-10-05" in text and "still worse" in text
    assert text.count('class="course"') == 1 and "history.html" in (tmp_path / "site" / "index.html").read_text()
    assert len(load(places).rows) == 1
    build(places[:1], tmp_path / "single")
    assert not (tmp_path / "single" / "history.html").exists()
