"""One deadline for a whole piece of work, whatever it waits for: an answer, a byte, a retry that a server asked for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds between two reminders, should a library have swallowed the first.
AGAIN_S = 0.5


class Late(BaseException):
    """The deadline has passed. No `Exception`: what retries on errors must not take it for one."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `Late` in the work within, once it has taken so long; only in the main thread, which alone gets signals.

    A timer that was running before goes on afterwards with what it has left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def remind(_number: int, frame: FrameType | None) -> None:
        # not while the deadline is being taken off: raised there, the timer would run on and end whatever comes next
        if frame is None or frame.f_globals.get("__name__") not in (__name__, "contextlib"):
            raise Late(f"no end after {seconds:g} s")

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, remind)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - start)), interval)
