"""The lines of docs/security.md that no other test holds."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.app.jobs import reproduce
from bench.case import Case
from bench.errors import UsageError
from bench.records import seal, write_json
from tests.sweeping import HEALTHY, configuration
from tests.synthetic import record

ROOT = Path(__file__).resolve().parents[1]


class Payload:
    """An object whose unpickling runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint that runs code when it is unpickled, as a bare pickle and as torch writes one."""
    import torch

    bare, zipped = tmp_path / "bare.pt", tmp_path / "zipped.pth"
    bare.write_bytes(pickle.dumps({"layer.weight": Payload(tmp_path / "mark")}))
    torch.save({"layer.weight": Payload(tmp_path / "mark")}, zipped)
    return [bare, zipped]


def test_a_checkpoint_that_would_run_code_is_refused_by_the_worker(hostile, tmp_path):
    from bench.worker.checkpoint import read_state

    for path in hostile:
        with pytest.raises(UsageError, match="safetensors"):
            read_state(path)
    assert not (tmp_path / "mark").exists()


def test_a_checkpoint_that_would_run_code_is_refused_by_the_suites(hostile, tmp_path):
    from suites.common.checkpoint import read_checkpoint

    for path in hostile:
        with pytest.raises(UsageError, match="refused"):
            read_checkpoint(path)
    assert not (tmp_path / "mark").exists()


def test_nothing_in_the_rooms_unpickles_what_came_from_elsewhere():
    """`torch.load` always weights-only; pickles only of objects that were made in the same run."""
    allowed = {"bench/worker/subject.py", "bench/meters/fvcore_count.py"}
    for room in ("bench", "suites", "reports"):
        for file in (ROOT / room).rglob("*.py"):
            text, name = file.read_text(encoding="utf-8"), str(file.relative_to(ROOT))
            for call in re.findall(r"torch\.load\([^\n]*", text):
                assert "weights_only=True" in call, name
            if name not in allowed:
                assert not re.search(r"\b(cloud)?pickle\.loads?\(|joblib\.load\(|\byaml\.(unsafe_)?load\(", text), name


@pytest.mark.parametrize("field", ["model", "method"])
def test_a_foreign_record_names_no_code_that_runs_untrusted(field, tmp_path):
    """Not even the module is imported: its import alone would run it."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\ndef build(): pass\n")
    made = record()
    case = Case.from_dict({**made["case"], field: "evil:build"})
    keys = {"case": case.as_dict(), "case_key": case.key, "record_key": f"{case.key}.{made['machine_key']}"}
    write_json(tmp_path / "foreign.json", seal({**made, **keys}))
    config = configuration(tmp_path, [HEALTHY], job="reproduce", row=str(tmp_path / "foreign.json"))
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(config)
    assert not (tmp_path / "mark").exists()
    assert "evil" not in sys.modules


def test_settings_of_a_foreign_record_are_literals_and_nothing_is_evaluated(tmp_path):
    from bench.case import parse_settings

    with pytest.raises(ValueError, match="not of the form"):
        parse_settings(f"r=__import__('os').system('touch {tmp_path / 'mark'}')")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("key", ["../../escaped", "/tmp/escaped", "a/../../b", "..", "", "a\x00b", "a\nb", "x" * 300])
def test_a_key_that_is_a_path_is_refused_before_any_file_is_named_after_it(key, tmp_path):
    from bench.records import CorruptRecord, Store, check

    for part in ("case_key", "machine_key", "record_key"):
        with pytest.raises(CorruptRecord, match="is no key"):
            check(seal({**record(), part: key}), "foreign")
    with pytest.raises(CorruptRecord, match="is no key"):
        Store(tmp_path / "results").write({**record(), "case_key": key})
    assert not list(tmp_path.iterdir())


def test_nothing_is_sent_anywhere_by_a_sweep_with_its_mirror_and_report(tmp_path):
    """Every socket of driver, mirror and report is watched: none leaves this machine, none is even tried."""
    pytest.importorskip("mlflow")
    watch = (
        "import socket, sys\nreal = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    if self.family in (socket.AF_INET, socket.AF_INET6):\n"
        "        open(sys.argv[1], 'a').write(f'{address}\\n')\n        raise OSError('no network here')\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
        "def resolve(host, *rest, **more):\n"
        "    open(sys.argv[1], 'a').write(f'{host}\\n')\n    raise OSError('no network here')\n"
        "socket.getaddrinfo = resolve\n"
        "from pathlib import Path\nfrom tests.synthetic import suite_records\nfrom bench.tracking import Mirror\n"
        "from reports.site import build\nfrom tests.synthetic import store\n"
        "made = store(Path(sys.argv[2]) / 'results')\n"
        "index = build([made.root], Path(sys.argv[2]) / 'site').index\n"
        "one = Mirror(f'sqlite:///{sys.argv[2]}/m.db', 'w', Path(sys.argv[2]) / 'a', made.root)\n"
        "one.start_sweep('s', {}, 1)\none.log_record(next(iter(made.iterate())))\none.finish(index)\n"
        "assert one.problems == [], one.problems\n"
    )
    log = tmp_path / "connections"
    environment = {k: v for k, v in os.environ.items() if k not in ("DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "CI")}
    done = subprocess.run([sys.executable, "-c", watch, str(log), str(tmp_path)], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert not log.exists(), log.read_text()


def test_every_line_of_the_threat_model_names_tests_that_exist():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "`tests/" in line]
    assert len(rows) >= 15
    for row in rows:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", row):
            found = (ROOT / file).read_text(encoding="utf-8")
            assert name == "" or f"def {name}(" in found, f"{file}::{name}"
