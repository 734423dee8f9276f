"""A real read-only and a real full file system under a whole driver: a remedy, exit code 2, nothing lost."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store.journal import Journal
from bench.store.records import Store
from tests.faults.driver import command, environment
from tests.sweeping import HEALTHY

WIDE = f"{HEALTHY}(width=8)"


@contextlib.contextmanager
def mounted(folder, *options):
    """A file system mounted on a folder, where this is allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def run(folder, models, *overrides, **more):
    return subprocess.run(
        command(folder, models, "executor.retries=0", *overrides),
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


needs_root = pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="mounting needs root")


@needs_root
def test_a_read_only_results_folder_is_refused_with_2_and_left_as_it_is(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "kept").write_text("what was measured before")
    before = contents(results)
    with mounted(results, "--bind", "-o", "ro", str(results)):
        done = run(tmp_path, [HEALTHY])
    assert done.returncode == 2, done.stderr
    assert "Read-only file system" in done.stderr and "make it writable" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(results) == before


def test_a_results_folder_without_the_right_to_write_is_refused_with_2(tmp_path):
    """Root may write everywhere by one capability, which the driver gives up for good before it starts."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "kept").write_text("what was measured before")
    results.chmod(0o555)
    give_up = (
        "import ctypes, os, sys; drop, override = 24, 1\n"
        "ctypes.CDLL(None).prctl(drop, override, 0, 0, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'bench', *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", give_up, *command(tmp_path, [HEALTHY])[3:]],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    results.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "Permission denied" in done.stderr and "make it writable" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in results.iterdir()] == ["kept"]


@pytest.mark.slow
@needs_root
def test_a_disk_that_is_full_after_the_first_case_stops_with_2_and_more_room_finishes_it(tmp_path):
    """A real small file system: what fitted is whole and is not measured again."""
    results = tmp_path / "results"
    with mounted(results, "-t", "tmpfs", "-o", "size=16m", "none"):
        first = run(tmp_path, [HEALTHY])
        assert first.returncode == 0, first.stderr
        with (results / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))
        full = run(tmp_path, [HEALTHY, WIDE])
        assert full.returncode == 2, full.stderr
        assert "No space left on device" in full.stderr and "kept" in full.stderr and "Traceback" not in full.stderr
        assert len(list(Store(results).iterate())) == 1
        (results / "ballast").unlink()
        after = run(tmp_path, [HEALTHY, WIDE])
        assert after.returncode == 0, after.stderr
        assert len(list(Store(results).iterate())) == 2
        probed = [entry["case"] for entry in Journal(Store(results).journal).read().events("probed")]
        assert len(probed) == len(set(probed)) == 2
        assert not list(Path(results).rglob("*.tmp"))
