"""Where it is started: encodings, names, edited imports, folders, and what `job=doctor` says of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.config.signatures import check_settings
from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


def bench_in(folder, *overrides, **environment):
    command = [sys.executable, "-m", "bench", *overrides]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, check=False, timeout=300)


def digest_in(folder, path):
    code = f"from bench.config.signatures import source_digest; print(source_digest({path!r}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


LAYOUTS = {
    "a file beside": ("nets.py", "from blocks import WIDTH", "blocks.py"),
    "a module of a folder without __init__": ("nets.py", "import parts.blocks", "parts/blocks.py"),
    "a package's own sibling": ("pack/nets.py", "from . import blocks", "pack/blocks.py"),
    "two levels up": ("pack/deep/nets.py", "from ..blocks import WIDTH", "pack/blocks.py"),
    "inside a function": ("nets.py", "def build():\n    import blocks", "blocks.py"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_edited_import_makes_another_case(tmp_path, name):
    model, statement, imported = LAYOUTS[name]
    for file, text in ((model, f"{statement}\n\ndef Net():\n    return None\n"), (imported, "WIDTH = 1\n")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    path = f"{model.removesuffix('.py').replace('/', '.')}:Net"
    before = digest_in(tmp_path, path)
    (tmp_path / imported).write_text("WIDTH = 4\n")
    assert digest_in(tmp_path, path) != before


def test_the_instrument_itself_is_no_part_of_a_subject():
    from bench.config import signatures

    assert not signatures.is_users_code("bench")
    assert not signatures.is_users_code("json")
    assert not signatures.is_users_code("torch")


@pytest.mark.parametrize(("given", "right"), [(1e1, "10"), ("3", "3"), (True, "1")])
def test_a_setting_that_would_need_a_conversion_is_refused_with_what_to_write(tmp_path, monkeypatch, given, right):
    (tmp_path / f"sized_{right}.py").write_text("def Net(width: int = 2, rate: float = 0.5):\n    return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=f"width={right}"):
        check_settings("model", f"sized_{right}:Net", {"width": given})
    check_settings("model", f"sized_{right}:Net", {"width": 3, "rate": 1})


def test_doctor_prints_under_any_encoding_and_says_where_it_was_started(tmp_path):
    folder = tmp_path / "ein Ördner"
    folder.mkdir()
    done = bench_in(folder, "job=doctor", PYTHONIOENCODING="ascii", MLFLOW_TRACKING_URI="http://x", HF_TOKEN="hidden")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert "MLFLOW_TRACKING_URI" in text
    assert "hidden" not in text
    assert "can be written" in text
    assert "torch " in text


@pytest.mark.parametrize("name", ["2024", "true", "1e3"])
def test_a_suite_whose_name_is_no_text_on_the_command_line_is_refused_in_words(tmp_path, name):
    suite = tmp_path / name
    suite.mkdir()
    (suite / "suite.yaml").write_text("grids: {default: [{models: [deit_tiny], methods: [none]}]}\n")
    done = bench_in(tmp_path, f"suite={name}", "job=plan", BENCH_SUITES=str(suite))
    assert done.returncode == 2
    assert b"name: suite_" in done.stderr


def test_an_unquoted_spec_is_told_with_the_quotes(tmp_path):
    done = bench_in(tmp_path, "model=nets:Net(width=4)")
    assert done.returncode == 2
    assert b"quote" in done.stderr
