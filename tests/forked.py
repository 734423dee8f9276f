"""A function in a fork of this process, for tests of what kills or starves a process; nothing is imported again."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def in_a_fork(work: Callable[[], object]) -> int:
    """The exit code of a fork that does this work and nothing else: 0, 1 where it raised, less than 0 for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
