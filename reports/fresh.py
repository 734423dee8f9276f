"""Whether a site is as new as what it is made from: told from the files' names, sizes and times, in milliseconds.

Nothing is imported here that takes time, so that a report with nothing new is answered before any of it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.version import __version__

FILE = Path("assets") / "build.json"
#: What of a suite's folder a report reads.
OF_SUITE = ("suite.yaml", "systems.yaml", "claims.yaml", "references.bib")
_CODE = Path(__file__).resolve().parents[1]


def stamp(roots: Sequence[Path], folders: Iterable[Path | str], options: Mapping[str, Any]) -> str:
    """A hash that changes with any record, sample, suite file, option or line of code that a site is made from.

    Args:
        roots: results folders.
        folders: folders of suites.
        options: everything else that was asked for, as plain data.
    """
    made = hashlib.sha256(json.dumps([__version__, options], sort_keys=True, default=str).encode())
    for line in _lines(roots, folders):
        made.update(line.encode("utf-8", "surrogateescape"))
    return made.hexdigest()


def _lines(roots: Sequence[Path], folders: Iterable[Path | str]) -> Iterator[str]:
    for root in roots:
        yield f"{os.path.abspath(root)}\n"
        classes = Path(root) / "pool.json"
        if classes.is_file():
            yield _line_of(str(classes))
        for folder in (Path(root) / "records", Path(root)):
            if folder.is_dir():
                yield from sorted(_line(entry) for entry in os.scandir(folder) if entry.name.endswith(".json"))
                break
        samples = Path(root) / "samples"
        if samples.is_dir():  # a folder per session, which changes when files come into it or go
            yield from sorted(_line(entry) for entry in os.scandir(samples))
    for suite in folders:
        for name in OF_SUITE:
            path = Path(suite) / name
            if path.is_file():
                yield _line_of(str(path))
    drawing = find_spec("plotly")
    if drawing is not None and drawing.origin is not None:  # its script stands beside the pages
        yield _line_of(drawing.origin)
    for room in ("bench", "reports"):
        for place, _, names in os.walk(_CODE / room):
            if not place.endswith("__pycache__"):
                yield from sorted(_line_of(os.path.join(place, name)) for name in names)


def _line(entry: os.DirEntry[str]) -> str:
    found = entry.stat()
    return f"{entry.name} {_mark(found)}\n"


def _line_of(path: str) -> str:
    return f"{path} {_mark(os.stat(path))}\n"


def _mark(found: os.stat_result) -> str:
    """What changes with a file's content, also where its size and the time that programs set are put back."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def kept(out: Path, wanted: str) -> dict[str, Any] | None:
    """What the last build said, if it was made from the same and all of its pages are there: `pages`, `problems`."""
    try:
        said = json.loads((out / FILE).read_text(encoding="utf-8"))
        if said["stamp"] != wanted:
            return None
        there = files_in(out)
        return said if all(page in there for page in said["pages"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def files_in(out: Path) -> set[str]:
    """The files of a site, as paths from its folder."""
    skipped = len(os.path.join(out, ""))
    return {os.path.join(place, name)[skipped:] for place, _, names in os.walk(out) for name in names}


def remember(out: Path, stamp: str, pages: Sequence[str], problems: Sequence[str]) -> None:
    """Note what a whole site was made from."""
    text = json.dumps({"stamp": stamp, "pages": list(pages), "problems": list(problems)}, separators=(",", ":"))
    beside = out / f"{FILE}.part"
    beside.write_text(text, encoding="utf-8")
    beside.replace(out / FILE)


def forget(out: Path) -> None:
    """Have the next build look at everything: this one did not finish what it began."""
    (out / FILE).unlink(missing_ok=True)
