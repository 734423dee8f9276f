"""A full disk, a folder that cannot be written, damaged files: told as what they are, and nothing measured is lost."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.app.jobs import sweep as job
from bench.errors import ResultsError
from bench.store import records
from bench.store.journal import Journal
from bench.store.records import Store
from tests.faults.driver import command, environment
from tests.sweeping import HEALTHY, configuration, sweep

WIDE = f"{HEALTHY}(width=8)"


class FullDisk:
    """Lets files whose names match grow no further, as a full disk would, from the n-th on."""

    def __init__(self, monkeypatch, matches, after=0):
        self.matches, self.left, self.real = matches, after, records.write_atomically
        monkeypatch.setattr(records, "write_atomically", self)

    def __call__(self, path, data):
        if self.matches(path):
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            self.left -= 1
        return self.real(path, data)


@pytest.mark.parametrize("part", [pytest.param("probes", marks=pytest.mark.slow), "samples", "records"])
def test_a_disk_that_fills_up_at_any_step_stops_the_sweep_with_the_remedy_and_the_rest_goes_on_later(
    tmp_path, monkeypatch, part
):
    config = configuration(tmp_path, [HEALTHY, WIDE])
    counts = {"probes": 1, "records": 1, "samples": 3}  # the first case fits: its session and two processes
    with monkeypatch.context() as patch:
        FullDisk(patch, lambda path: part in path.parts, after=counts[part])
        with pytest.raises(ResultsError, match=r"No space left.*what was measured before is kept"):
            sweep(config)
    kept = list(Store(config.paths.results).iterate())
    assert [record["case"]["model_settings"] for record in kept] == [""]
    assert not list(Path(config.paths.results).rglob("*.tmp"))
    finished = sweep(config)
    assert {record["status"] for record in finished.records} == {"ok"}
    assert finished.measured == 1
    probed = [entry["case"] for entry in Journal(Store(config.paths.results).journal).read().events("probed")]
    assert len(probed) == len(set(probed)) == 2  # what the full disk could hold was not measured again


@pytest.mark.slow
def test_the_kernels_own_limit_on_file_size_is_told_by_the_command_line_without_a_traceback(tmp_path):
    """RLIMIT_FSIZE in the driver: a real failing write, through the whole command line."""
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)); "
        "sys.argv = ['bench', *sys.argv[1:]]; from bench.app.cli import main; main()"
    )
    arguments = command(tmp_path, [HEALTHY])[3:]
    done = subprocess.run(
        [sys.executable, "-c", limit, *arguments, "executor.retries=0"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (2, 3), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert not list((tmp_path / "results").rglob("*.tmp"))
    list(Store(tmp_path / "results").iterate())  # whatever is there is whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_on_a_full_disk_stops_the_sweep_before_anything_is_measured_in_vain(tmp_path):
    config = configuration(tmp_path, [HEALTHY])
    Path(config.paths.results).mkdir()
    Store(config.paths.results).journal.symlink_to("/dev/full")
    with pytest.raises(ResultsError, match="journal cannot be written"):
        sweep(config)
    assert not Store(config.paths.results).probes.exists()


@pytest.mark.parametrize("blocked", ["results", "results/records"])
def test_a_file_where_a_folder_should_be_is_told(tmp_path, blocked):
    config = configuration(tmp_path, [HEALTHY])
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("in the way")
    with pytest.raises(ResultsError, match="cannot be written"):
        sweep(config)


def test_temporary_files_that_do_not_fit_are_told_with_their_folder(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY])
    from bench.worker import client

    def full(path, _value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(client, "write_json", full)
    with pytest.raises(ResultsError, match=r"No space left.*TMPDIR"):
        sweep(config)


def test_a_page_that_does_not_fit_costs_no_record_and_exits_with_2(tmp_path, monkeypatch, capsys):
    config = configuration(tmp_path, [HEALTHY])
    (tmp_path / "site").write_text("in the way")
    assert job.run(config) == 2
    told = capsys.readouterr()
    assert "cannot be written" in told.err and str(tmp_path / "site") in told.err
    assert "1 measured now" in told.out
    assert len(list(Store(config.paths.results).iterate())) == 1


def test_damaged_samples_of_an_unfinished_session_are_put_aside_and_measured_again(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY])
    with monkeypatch.context() as patch:
        FullDisk(patch, lambda path: "records" in path.parts)
        with pytest.raises(ResultsError):
            sweep(config)
    first, second = sorted(Path(config.paths.results).glob("samples/*/[0-9]*.json.gz"))
    whole, blob = first.read_bytes(), bytearray(second.read_bytes())
    blob[len(blob) // 2 :] = os.urandom(len(blob) - len(blob) // 2)
    second.write_bytes(bytes(blob))
    again = sweep(config)
    assert again.records[0]["status"] == "ok"
    assert "damaged samples" in again.problems[0] and second.name in again.problems[0]
    assert first.read_bytes() == whole  # the good one was used as it was
    assert second.with_name(f"{second.name}.corrupt").read_bytes() == bytes(blob)


def test_a_damaged_probe_and_a_torn_journal_cost_only_what_they_held(tmp_path, monkeypatch):
    config = configuration(tmp_path, [HEALTHY])
    with monkeypatch.context() as patch:
        FullDisk(patch, lambda path: "samples" in path.parts)
        with pytest.raises(ResultsError):
            sweep(config)
    store = Store(config.paths.results)
    (probe,) = store.probes.glob("*.json")
    probe.write_text(probe.read_text()[:100])
    with store.journal.open("a") as journal:
        journal.write('{"event":"probed","at":"2026-')
    result = sweep(config)
    assert [record["status"] for record in result.records] == ["ok"]
    json.loads(probe.read_text())
    contents = Journal(store.journal).read()
    assert not contents.torn and len(contents.corrupt) == 1
    assert contents.events("sweep_ended")


@pytest.mark.slow
def test_one_corrupt_record_among_good_ones_is_named_and_exits_with_3(tmp_path, capsys):
    config = configuration(tmp_path, [HEALTHY, WIDE])
    sweep(config)
    bad = sorted(Store(config.paths.results).records.glob("*.json"))[0]
    bad.write_bytes(bad.read_bytes()[:-40])
    assert job.run(config) == 3
    told = capsys.readouterr()
    assert bad.name in told.err and "move it away" in told.err
    assert len(bad.read_bytes()) > 0
    bad.rename(tmp_path / "away.json")
    assert job.run(config) == 0
    assert len(list(Store(config.paths.results).iterate())) == 2
