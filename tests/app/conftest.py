import pytest


@pytest.fixture(autouse=True)
def _one_server_for_all(shared_server):
    """A test here that wants a server of its own has a driver of its own, in another process."""
