"""Results go into folders of this machine, whose lock and journal keep their promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UsageError
from tests.sweeping import HEALTHY, configuration


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("file:///data/results", "/data/results"), ("file:///data/my%20results", "/data/my results"),
        ("a,file:///b", "a,/b"), ("odd:/name", "odd:/name"), ("results", "results"),
    ],
)  # fmt: skip
def test_the_address_of_a_folder_is_the_folder(given, kept, tmp_path):
    paths = {"results": given, "site": "site", "cache": "cache"}
    assert configuration(tmp_path, [HEALTHY], paths=paths).paths.results == kept


@pytest.mark.parametrize("place", ["s3://lab/r", "memory://r", "file://host/r", "a,hdfs://r", "abfs://lab/r"])
def test_a_store_without_locks_is_refused_with_what_to_do_instead(place, tmp_path):
    with pytest.raises(UsageError, match=r"no lock .* copy it there when the sweep has ended"):
        configuration(tmp_path, [HEALTHY], paths={"results": place, "site": "site", "cache": "cache"})


def test_the_suite_of_an_installed_package_is_found_by_its_entry_point(tmp_path):
    package, listing = tmp_path / "their_suite", tmp_path / "their_suite-1.0.dist-info"
    for file, text in (
        (package / "__init__.py", ""),
        (package / "suite.yaml", "name: theirs\ngrids: {}\n"),
        (listing / "METADATA", "Metadata-Version: 2.1\nName: their-suite\nVersion: 1.0\n"),
        (listing / "entry_points.txt", "[bench.suites]\ntheirs = their_suite\n"),
    ):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    root = Path(__file__).resolve().parents[2]
    script = "from bench.config.paths import suite_folders; print(suite_folders()[-1])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(package), done.stderr
