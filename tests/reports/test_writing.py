"""Two processes make the same site as one; a copy that ends without a word costs nothing but its time."""

import os
import subprocess
import sys
from pathlib import Path

from markupsafe import Markup

from reports.pages.page import Stencil, place
from tests.synthetic import store

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import os, sys
from pathlib import Path
from reports import site, writing
from reports.pages import case

folder, first = Path(sys.argv[1]), os.getpid()
os.sched_getaffinity = lambda _: {0, 1}
sheets, makers = case.sheets, set()

def noted(of):
    for sheet in sheets(of):
        if dies and os.getpid() != first:
            os._exit(1)
        makers.add(os.getpid())
        yield sheet

case.sheets = noted
for name, many, dies in (("one", 10**9, False), ("two", 1, False), ("dead", 1, True)):
    writing.MANY, made = many, site.build(folder / "results", folder / name, figure_seconds=-1)
    print(name, first in makers, len(made.pages), made.written, made.brief, made.problems)
    makers.clear()
"""


def test_two_processes_make_the_same_pages_as_one(tmp_path):
    store(tmp_path / "results", with_samples=False)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=100)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [["one", "True"], ["two", "False"], ["dead", "True"]], done.stderr
    one, two, dead = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two", "dead")
    )
    assert any(path.parts[0] == "cases" for path in one) and one == two == dead
    assert len({line[2] for line in lines}) == 1


def test_a_stencil_puts_texts_into_places_and_escapes_what_is_no_markup():
    stencil = Stencil(f"<p>{place('a')}</p>{place('b')}{place('c')}")
    texts = {"a": "1 < 2", "b": Markup("<b>x</b>"), "c": "\ue000\ue001 & y"}
    assert stencil.filled(texts) == "<p>1 &lt; 2</p><b>x</b>\ue000\ue001 &amp; y"
    assert stencil.filled({**texts, "c": ""}) == "<p>1 &lt; 2</p><b>x</b>"
