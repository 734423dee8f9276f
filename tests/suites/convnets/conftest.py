import pytest

from bench.errors import UsageError
from suites.common.timm_bridge import import_timm


@pytest.fixture(scope="session")
def timm():
    """The package, or a skip where it is not installed."""
    try:
        return import_timm()
    except UsageError as error:
        pytest.skip(str(error))
