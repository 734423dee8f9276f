"""Results go into folders of this machine, whose lock and journal keep their promises."""

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
