"""The report while a sweep runs: rebuilt after a finished group, in a process of its own with a time limit.

Measuring never waits long for it and never fails because of it: it runs between two groups, when no worker does, as
long as all refreshes together take a small share of the time measured; whatever goes wrong is one line.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.config.schema import Config, validate
from bench.sweep.events import Event, GroupFinished

#: Seconds after which a refresh is given up.
LIMIT_S = 30.0
#: Share of the measuring time that refreshes may take; the first one is always made.
SHARE = 0.05
#: Seconds that a refresh spends on the figures of case pages; the pages beyond get theirs at the end.
FIGURE_SECONDS = 1.0


class Refresher:
    """A listener of a sweep that has the report rebuilt after finished groups.

    Args:
        config: where records and site are; nothing is made where the report is switched off.
        then: called with the first page, or None, when it is new: the mirror shows it.
        build: makes the page or raises; replaced in tests.
        clock: seconds that only grow; replaced in tests.
    """

    def __init__(
        self,
        config: Config,
        then: Callable[[Path | None], None],
        *,
        build: Callable[[Config], Path] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._config, self._then, self._clock = config, then, clock
        self._build = build or build_apart
        self._began = clock()
        self._spent: float | None = None  # seconds of all refreshes; None before the first
        self._announced = False

    def __call__(self, event: Event) -> None:
        """Refresh after a group, unless it was the last one: the sweep's end makes the whole report."""
        if isinstance(event, GroupFinished) and event.left and self._affordable():
            self._refresh()

    def _affordable(self) -> bool:
        if self._spent is None:
            return True
        return self._spent <= SHARE * (self._clock() - self._began - self._spent)

    def _refresh(self) -> None:
        started = self._clock()
        try:
            page = self._build(self._config) if self._config.report.enabled else None
            self._then(page)
            if page is not None and not self._announced:
                self._announced = True
                print(f"bench: the report so far is in {page}", file=sys.stderr, flush=True)
        except Exception as error:  # a page that is not there yet is no reason to stop measuring
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            print(f"bench: the report was not refreshed ({what}); it is made when the sweep ends", file=sys.stderr)
        finally:
            self._spent = (self._spent or 0.0) + self._clock() - started


def build_apart(config: Config) -> Path:
    """The report's first page, made in a process of its own, whose memory and failures stay there.

    Raises:
        TimeoutError: it took longer than `LIMIT_S`.
        RuntimeError: it could not be made, with the last thing that the process said.
    """
    command = [sys.executable, "-m", "bench.app.refresh"]
    try:
        done = subprocess.run(
            command,
            input=config.model_dump_json(exclude_unset=True),
            text=True,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it took longer than {LIMIT_S:g} s") from error
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason was given"])[-1])
    return Path(config.paths.site) / "index.html"


def main() -> None:
    """Make the report of the configuration that the standard input holds."""
    import json

    from bench.app import site
    from bench.config.paths import extend_import_path

    extend_import_path()
    config = validate(json.loads(sys.stdin.read()))
    report = config.report.model_copy(update={"figure_seconds": FIGURE_SECONDS})
    site.build(config.model_copy(update={"report": report}))


if __name__ == "__main__":
    main()
