"""What holds for every test.

One that needs a GPU is skipped where there is none, with the reason. What is there to stay (ten thousand tests,
libraries) is not searched for garbage again: that takes half a second, and the instrument asks for it wherever it
looks at memory.
"""

import functools
import gc
import itertools
import os

import pytest


@functools.cache
def why_no_gpu() -> str:
    """Why tests that need a CUDA device cannot run here; empty where they can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "" if torch.cuda.is_available() else "CUDA finds no device"


#: So many tests share a search for garbage.
SEARCHED_EVERY = 50
_ENDED = itertools.count(1)


def _leave_alone_what_is_there():
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session):
    _leave_alone_what_is_there()


def pytest_runtest_teardown(item):
    if next(_ENDED) % SEARCHED_EVERY == 0:
        _leave_alone_what_is_there()


@pytest.fixture
def shared_server(monkeypatch):
    """Forecasts and measurements of a test fork from the server that sweeps of tests share."""
    from tests.workers import Sharing

    monkeypatch.setattr("bench.app.forecast.Workers", Sharing)
    monkeypatch.setattr("bench.sweep.executors.local.Workers", Sharing)


@pytest.fixture(scope="session", autouse=True)
def _nothing_waits_for_the_disk():
    """What is synced is there after a power cut, which no test makes; a small file takes eight times as long."""
    real, os.fsync = os.fsync, lambda handle: None
    yield
    os.fsync = real


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None and why_no_gpu():
        pytest.skip(why_no_gpu())
