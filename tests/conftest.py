"""What holds for every test: one that needs a GPU is skipped where there is none, with the reason."""

import functools

import pytest


@functools.cache
def why_no_gpu() -> str:
    """Why tests that need a CUDA device cannot run here; empty where they can."""
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "" if torch.cuda.is_available() else "CUDA finds no device"


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None and why_no_gpu():
        pytest.skip(why_no_gpu())
