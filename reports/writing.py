"""Which pages of a site are made anew, within the time for figures, and by whom: one process, or two where that pays.

Pages of cases are the many: in a store of thousands a second process makes them while this one makes the others. It is
a copy of this one (fork), so that nothing is handed over but what was written, and it is made only where this process
has no other thread, which a copy would lose.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from reports import fresh
from reports.content import Site
from reports.left_out import sheets_of, texts_of
from reports.manifest import BRIEF, OTHER, WHOLE, Manifest
from reports.pages import PAGES
from reports.pages.page import Page, Sheet

#: Rows from which a second process is worth its start and its memory.
MANY = 1500
#: Less than any time that was spent.
NO_TIME = -1.0


@dataclass
class Written:
    """What became of pages: their files, how many were made, how many lack figures, whether nothing is left to do."""

    paths: list[str] = field(default_factory=list)
    written: int = 0
    brief: int = 0
    whole: bool = True

    def __add__(self, other: Written) -> Written:
        return Written(
            self.paths + other.paths, self.written + other.written, self.brief + other.brief, self.whole and other.whole
        )


@dataclass(frozen=True)
class _Job:
    """Pages to be made from a site into a folder; `seconds` may go into those with figures, None is no limit."""

    site: Site
    out: Path
    manifest: Manifest
    there: set[str]
    pages: Sequence[Page]
    seconds: float | None


def write(site: Site, out: Path, manifest: Manifest, figure_seconds: float | None) -> Written:
    """Make every page whose needs are met and that is not as it should be; `manifest` remembers all of them.

    Args:
        site: what they draw from; its `problems` get a line for what cannot be made.
        out: the folder of the site.
        manifest: of the last build; it is not finished here.
        figure_seconds: time for pages with figures; those beyond it are made without, None is no limit.

    Raises:
        OSError: a file cannot be read or written.
    """
    job = _Job(site, out, manifest, fresh.files_in(out), PAGES, figure_seconds)
    if len(site.rows) < MANY or not _may_fork():
        return _make_all(job)
    many, others = ([page for page in PAGES if page.per_row is wanted] for wanted in (True, False))
    new = not any(row.page in job.there for row in site.rows)  # then every page comes before any figure of a case
    seconds = NO_TIME if new and figure_seconds is not None else figure_seconds
    return _by_two(replace(job, pages=others), replace(job, pages=many, seconds=seconds))


def _may_fork() -> bool:
    """Whether there is a second core, and a copy of this process lacks no thread of its own or of torch's."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return alone and sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


def _by_two(own: _Job, other: _Job) -> Written:
    """Both jobs at once, the other one by a copy of this process; here as well where that ends without an answer."""
    left, right = multiprocessing.Pipe(duplex=False)
    copy = multiprocessing.get_context("fork").Process(target=_answer, args=(other, right), daemon=True)
    copy.start()
    right.close()
    try:
        made, answer = _make_all(own), _received(left)
    except BaseException:
        copy.terminate()
        raise
    finally:
        copy.join()
        left.close()
    if answer is None:
        return made + _make_all(other)
    if isinstance(answer, OSError):
        raise answer
    found, now, problems = answer
    own.manifest.now |= now
    own.site.problems += problems
    return made + found


#: What a copy tells: what became of its pages, what the manifest has to know of them, and lines for `problems`.
_Answer = tuple[Written, dict[str, str], list[str]]


def _received(end: Connection) -> _Answer | OSError | None:
    """What the copy tells; None where it ended without a word."""
    try:
        answer: _Answer | OSError = end.recv()
    except EOFError:
        return None
    return answer


def _answer(job: _Job, end: Connection) -> None:
    """In the copy: make the pages and tell what became of them; of other errors the first process will tell."""
    before = len(job.site.problems)
    try:
        made = _make_all(job)
        end.send((made, job.manifest.now, job.site.problems[before:]))
    except OSError as error:
        end.send(error)
    except (Exception, KeyboardInterrupt):  # it ends without a word, and the first one makes these pages itself
        return


def _make_all(job: _Job) -> Written:
    """Make the pages of a job, one after another."""
    made, spent = Written(), 0.0
    for sheet in sheets_of(job.site, job.pages):
        made.paths += sheet.paths
        known = job.manifest.known(sheet.paths, sheet.digest)
        if not all(path in job.there for path in sheet.paths):
            known = OTHER
        if known == WHOLE:
            continue
        started = time.perf_counter()
        over = job.seconds is not None and spent > job.seconds and sheet.brief is not None
        kept = over and known == BRIEF
        whole = kept or _make(job, sheet, brief=over)
        if over or not whole:
            job.manifest.unfinished(sheet.paths, sheet.digest if whole else "")
            made.whole = False
        spent += 0.0 if sheet.brief is None else time.perf_counter() - started
        made.written, made.brief = made.written + (not kept), made.brief + over
    return made


def _make(job: _Job, sheet: Sheet, *, brief: bool) -> bool:
    """Write a page and the files beside it; whether they are what they should be."""
    texts, whole = texts_of(job.site, sheet, brief=brief)
    for path, text in zip(sheet.paths, texts, strict=True):
        _replace(os.path.join(job.out, path), text)
    return whole


def _replace(path: str, text: str) -> None:
    """Write beside and rename: a reader sees the old page or the new one. Pages can be made again, so no sync."""
    beside = f"{path}.part"
    with open(beside, "wb") as file:
        file.write(text.encode())
    os.replace(beside, path)
