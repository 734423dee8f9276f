"""Nothing that a record contains can become markup or show where files were on the machine."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.pages.page import with_code
from reports.rows import rows_of
from reports.safe import CONTENT_POLICY, inert_json, published, without_paths
from tests.synthetic import record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_inert_json_reads_back_and_holds_no_character_that_markup_needs(value):
    text = str(inert_json(value))
    assert json.loads(text) == value
    assert not set(text) & {"<", ">", "&", "\u2028", "\u2029"}


def test_a_script_end_in_a_name_stays_text():
    assert "</script" not in inert_json({"name": "</script><script>alert(1)</script>"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("error in /root/secret/dir/file.py, line 3", "error in …/file.py, line 3"),
        ('File "/home/some one/x/y.py"', 'File "…/y.py"'),
        (r"C:\Users\me\x.py failed", "…\\x.py failed"),
        ("see https://example.org/a/b for op/s and 3/4", "see https://example.org/a/b for op/s and 3/4"),
        ("~/cache/models/a.pt", "…/a.pt"),
        ("cc -I/home/jd/inc/x", "cc -I…/x"),
        ("file:///home/jd/a/b.py", "file:…/b.py"),
        ("/a:/home/jd/lib/so", "/a:…/so"),
        ("in /home/jd:", "in ~:"),
        ("see https://h.org/home/a/b", "see https://h.org/home/a/b"),
    ],
)
def test_paths_are_cut_to_their_last_part(text, shown):
    assert without_paths(text) == shown


def test_a_path_that_begins_a_line_is_cut_in_the_data_of_a_figure_too():
    shown = inert_json({"log": "text\n/home/jd/a/b.py:3: UserWarning"}, hide_paths=True)
    assert json.loads(str(shown)) == {"log": "text\n…/b.py:3: UserWarning"}


def test_private_entries_of_the_environment_are_left_out():
    record = {"environment": {"hostname": "secret", "cpu": {"model": "A"}, "user": "me"}, "layers": [{"macs": 1}]}
    assert published(record) == {"environment": {"cpu": {"model": "A"}}, "layers": [{"macs": 1}]}


def test_what_has_no_path_is_shared_and_not_copied():
    readings = [{"metric": "macs", "value": 1.0, "note": "a/b"}]
    error = {"text": "in /srv/x/y.py", "parts": [{"n": 1}, "/srv/x/y.py"]}
    record = {"readings": readings, "error": error}
    shown = published(record)
    assert shown == {"readings": readings, "error": {"text": "in …/y.py", "parts": [{"n": 1}, "…/y.py"]}}
    assert shown["readings"] is readings and shown["error"]["parts"][0] is error["parts"][0]
    assert error["text"] == "in /srv/x/y.py" and error["parts"][1] == "/srv/x/y.py"
    assert without_paths((1, "a")) == [1, "a"] and without_paths({"host": "me"}) == {}


def test_the_policy_allows_no_connection_and_no_inline_script():
    parts = dict(part.strip().split(" ", 1) for part in CONTENT_POLICY.split(";"))
    assert parts["default-src"] == parts["connect-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert "unsafe" not in parts["script-src"]


def test_code_in_a_card_is_set_apart_and_stays_text():
    assert with_code("`dense` or <b>") == "<code>dense</code> or &lt;b&gt;"
    assert with_code("`<i>`") == "<code>&lt;i&gt;</code>" and with_code("a ` alone") == "a ` alone"


def test_a_disturbed_record_is_called_so_with_what_disturbed_it_alone():
    error = {"phase": "measure", "type": "contaminated", "message": "why"}
    made = {**record(), "status": "contaminated", "error": error}
    (row,) = rows_of([made], [])
    assert (row.state, row.reason, row.status) == ("disturbed", "why", "contaminated")
