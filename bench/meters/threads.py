"""Work in threads that a forward starts or hands tasks to: followed by the meters' modes, or found and named.

A dispatch mode sees only the thread that it was entered in. While a `ThreadsFollowed` is active, every thread that is
started and every task of a thread pool enters the meter's mode as well. Threads that were waiting before (a queue of
one's own, `multiprocessing.pool.ThreadPool`) cannot be made to; `unseen_operators` tells whether they computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_MARK = "bench::this thread is followed"

#: Makes a context for another thread; called in the thread that starts it or hands it a task.
Follow = Callable[[], AbstractContextManager[Any]]


class ThreadsFollowed:
    """A context in which new threads and tasks of thread pools run inside what `follow` makes; `idents` are theirs."""

    def __init__(self, follow: Follow) -> None:
        self.idents: set[int] = set()
        self._follow = follow
        self._open = False
        self._inside = threading.local()

    def __enter__(self) -> ThreadsFollowed:
        self._start, self._submit = threading.Thread.start, ThreadPoolExecutor.submit
        threading.Thread.start = self._started()  # type: ignore[method-assign, assignment]
        ThreadPoolExecutor.submit = self._submitted()  # type: ignore[method-assign]
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        threading.Thread.start = self._start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = self._submit  # type: ignore[method-assign]

    def _started(self) -> Callable[[threading.Thread], None]:
        original = self._start

        def start(thread: threading.Thread) -> None:
            if not getattr(self._inside, "submit", False):  # a pool's own thread outlives its task: see `submit`
                setattr(thread, "run", self._wrapped(thread.run))  # noqa: B010
            original(thread)

        return start

    def _submitted(self) -> Callable[..., Future[Any]]:
        original = self._submit

        def submit(pool: ThreadPoolExecutor, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            self._inside.submit = True
            try:
                return original(pool, self._wrapped(task), *args, **kwargs)
            finally:
                self._inside.submit = False

        return submit

    def _wrapped(self, task: Callable[..., Any]) -> Callable[..., Any]:
        context = self._follow()

        def followed(*args: Any, **kwargs: Any) -> Any:
            if not self._open:
                return task(*args, **kwargs)
            self.idents.add(threading.get_ident())
            with context, torch.autograd.profiler.record_function(_MARK):
                return task(*args, **kwargs)

        return followed


class ThreadClocks:
    """Processor time of this process's other Python threads, to tell whether any of them did something meanwhile."""

    def __init__(self) -> None:
        self._before = _clocks()

    def moved(self, besides: set[int]) -> bool:
        """Whether a thread that was there at the start, and is not one of `besides`, has computed since."""
        return any(
            seconds > self._before[ident]
            for ident, seconds in _clocks().items()
            if ident in self._before and ident not in besides
        )


def _clocks() -> dict[int, float]:
    own, found = threading.get_ident(), dict[int, float]()
    if threading.active_count() == 1 or not hasattr(time, "pthread_getcpuclockid"):
        return found
    for thread in threading.enumerate():
        if thread.ident is not None and thread.ident != own and thread.is_alive():
            try:
                found[thread.ident] = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            except OSError:
                continue
    return found


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def all_threads() -> Any:
    """The option that makes torch's profiler look at every thread; None where it has no such option."""
    try:
        return torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    except TypeError:
        return None


def unseen_operators(run: Callable[[], Any]) -> list[str]:
    """Names of the operators that a run executes in threads which cannot be followed; the run is made once more.

    The list is empty also where this torch's profiler looks at one thread alone.
    """
    options = all_threads()
    if options is None:
        return []
    here = torch.autograd.profiler.record_function(_MARK)
    profiler = torch.autograd.profiler.profile(use_cpu=True, experimental_config=options)
    with ThreadsFollowed(_nothing), profiler as profile, here:
        run()
    session: Any = profile
    events = session.kineto_results.events()
    known = {event.start_thread_id() for event in events if event.name() == _MARK}
    return sorted({e.name() for e in events if e.start_thread_id() not in known and "::" in e.name()})
