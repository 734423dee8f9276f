"""A battery of small checks that every model and method of a suite passes, for users' own as well.

In a test file::

    import pytest
    from bench.testing import Subject, checks_for, run_check

    MINE = Subject(
        "half",
        model="deit_tiny(width=16, heads=2, depth=4, patch=4)",
        method="mypackage.methods:half(keep=0.5)",
        shape={"batch": 2, "resolution": 20},
        identity="mypackage.methods:half(keep=1.0)",
    )


    @pytest.mark.parametrize("check", checks_for(MINE))
    def test_half(check):
        run_check(check, MINE)
"""

from bench.testing.battery import CHECKS, CheckFailed, Skipped, checks_for, run_all, run_check
from bench.testing.subject import Subject, subjects_of, subjects_of_suites

__all__ = [
    "CHECKS",
    "CheckFailed",
    "Skipped",
    "Subject",
    "checks_for",
    "run_all",
    "run_check",
    "subjects_of",
    "subjects_of_suites",
]
