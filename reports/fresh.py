"""Whether a site is as new as what it is made from, told in milliseconds.

Code, templates and the files of suites are told by what is in them. Records are told by their sizes and times, of which
the system sets one by itself at every change; what was changed a moment before the look could be changed once more
within the same grain of the clock, so that of those the content is told as well.

Nothing is imported here that takes time, so that a report with nothing new is answered before any of it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import documentation
from bench.foreign_files import GRAIN_NS, read_regular
from bench.version import __version__

FILE = Path("assets") / "build.json"
#: What of a suite's folder a report reads.
OF_SUITE = ("suite.yaml", "systems.yaml", "claims.yaml", "references.bib")
#: Bytes of a file that is told by its content.
MOST_BYTES = 64 * 2**20
_CODE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Look:
    """What there was to make a site from: a hash of it all, and when it was looked at, in ns since 1970."""

    stamp: str
    at: int


@dataclass(frozen=True)
class Inputs:
    """What a site is made from: results folders, folders of suites, and what was asked for, as plain data."""

    roots: Sequence[Path]
    folders: Sequence[Path | str]
    options: Mapping[str, Any]

    def look(self, at: int | None = None) -> Look:
        """A hash that changes with any record, sample, suite file, option or line of code.

        Args:
            at: the time of an earlier look, whose hash this one's is compared with; default now.
        """
        at = time.time_ns() if at is None else at
        made = hashlib.sha256(json.dumps([__version__, self.options], sort_keys=True, default=str).encode())
        for lines in (_of_results(self.roots, at), _of_suites(self.folders), _of_code()):
            for line in lines:
                made.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        return Look(made.hexdigest(), at)


def _of_results(roots: Iterable[Path], at: int) -> Iterator[str]:
    for root in roots:
        yield os.path.abspath(root)
        classes = Path(root) / "pool.json"
        if classes.is_file():
            yield _content(str(classes))
        for folder in (Path(root) / "records", Path(root)):
            if folder.is_dir():
                yield from sorted(_entry(entry, at) for entry in os.scandir(folder) if entry.name.endswith(".json"))
                break
        samples = Path(root) / "samples"
        if samples.is_dir():  # a folder per session, which changes when files come into it or go
            yield from sorted(_entry(entry, at) for entry in os.scandir(samples))


def _of_suites(folders: Iterable[Path | str]) -> Iterator[str]:
    for suite in folders:
        for name in OF_SUITE:
            path = Path(suite) / name
            if path.is_file():
                yield _content(str(path))


def _of_code() -> Iterator[str]:
    drawing = find_spec("plotly")
    if drawing is not None and drawing.origin is not None:  # its script stands beside the pages
        yield f"{drawing.origin} {_mark(os.stat(drawing.origin))}"
    for room in ("bench", "reports"):
        for place, _, names in os.walk(_CODE / room):
            if not place.endswith("__pycache__"):
                yield from sorted(_content(os.path.join(place, name)) for name in names)


def _entry(entry: os.DirEntry[str], at: int) -> str:
    """A record, or a folder of samples."""
    found = entry.stat()
    line = f"{entry.name} {_mark(found)}"
    if max(found.st_mtime_ns, found.st_ctime_ns) + GRAIN_NS < at:
        return line
    if entry.is_dir():
        return "\n".join([line, *sorted(f"{each.name} {_mark(each.stat())}" for each in os.scandir(entry.path))])
    return f"{line} {_content(entry.path)}"


def _content(path: str) -> str:
    try:
        return f"{path} {hashlib.sha256(read_regular(path, MOST_BYTES)).hexdigest()}"
    except OSError as error:
        return f"{path} {error}"


def _mark(found: os.stat_result) -> str:
    """What changes with a file's content, also where its size and the time that programs set are put back."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def asked(
    out: Path,
    *,
    rates: tuple[Any, ...],
    suite: str | None = None,
    show_paths: bool = False,
    title: str | None = None,
    compare: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """What of a build is asked for and changes its pages, as plain data: the options of `reports.site.build`.

    The documents that stand beside the site are among them, for pages link them.
    """
    return {
        "suite": suite,
        "show_paths": show_paths,
        "title": title,
        "compare": compare,
        "rates": rates,
        "docs": documentation.beside(out),
    }


def kept(out: Path, inputs: Inputs) -> dict[str, Any] | None:
    """What the last build said, if it was made from the same and all of its pages are there: `pages`, `problems`."""
    try:
        said = json.loads((out / FILE).read_text(encoding="utf-8"))
        if said["stamp"] != inputs.look(said["at"]).stamp:
            return None
        there = files_in(out)
        return said if all(page in there for page in said["pages"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def files_in(out: Path) -> set[str]:
    """The files of a site, as paths from its folder."""
    skipped = len(os.path.join(out, ""))
    return {os.path.join(place, name)[skipped:] for place, _, names in os.walk(out) for name in names}


def remember(out: Path, look: Look, pages: Sequence[str], problems: Sequence[str]) -> None:
    """Note what a whole site was made from."""
    said = {"stamp": look.stamp, "at": look.at, "pages": list(pages), "problems": list(problems)}
    beside = out / f"{FILE}.part"
    beside.write_text(json.dumps(said, separators=(",", ":")), encoding="utf-8")
    beside.replace(out / FILE)


def forget(out: Path) -> None:
    """Have the next build look at everything: this one did not finish what it began."""
    (out / FILE).unlink(missing_ok=True)
