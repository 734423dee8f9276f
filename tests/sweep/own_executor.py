"""An executor from outside the package: its door is the function `open_executor`."""

from tests.sweep.test_executors import open_executor_here as open_executor

__all__ = ["open_executor"]
