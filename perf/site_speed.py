"""How long a site takes and how large its pages are, from made-up records of 18 suites.

Run `python -m perf.site_speed` (further: `--rows 2000 10000`). For each size it times how long the records take to be
verified, which is done once in their life, then the first build, a build after a few new records, and `job=report` with
nothing new as a process of its own; it gives the bytes of the first page and of the largest page and data files of a
suite. With a Chromium and playwright it also times how long the first page and the largest suite take to be usable:
until their scripts have run.

Figures of cases, which a build makes as far as its time goes, are left out where a whole site is needed: there are
thousands, and each takes as long as in any other store.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

from bench.config.paths import suite_folders
from bench.store.records import Record, Store, seal, write_json
from reports.pages import case
from reports.site import FIGURE_SECONDS, SiteResult, build

ROOT = Path(__file__).resolve().parent.parent
SUITES = 18
NETWORKS, BATCHES = 6, (1, 8, 32)
CHROMIUM = Path("/usr/bin/chromium")

T = TypeVar("T")


def records(rows: int, seed: int = 1) -> Iterator[Record]:
    """So many records, spread evenly over suites; a group holds a network at a batch with its methods and settings.

    One in twenty is disturbed, and every second suite has scores.
    """
    from tests.synthetic import record

    rng = random.Random(seed)
    each = -(-rows // SUITES)
    settings = -(-each // (NETWORKS * len(BATCHES) * 8))
    made = 0
    for suite in range(SUITES):
        name, left = f"suite_{suite:02d}", each
        for network in range(NETWORKS):
            for batch in BATCHES:
                base, macs = rng.uniform(10, 200), rng.uniform(0.2e9, 20e9)
                score = rng.uniform(70, 95) if suite % 2 else None
                shared: dict[str, Any] = {
                    "suite": name,
                    "model": f"{name}_net{network}",
                    "batch": batch,
                    "baseline_ms": base,
                }
                plain = record(macs=macs, baseline_macs=macs, latency_ms=base, accuracy=score, noise=0.003, **shared)
                for item in (plain, *_reduced(rng, macs, base, score, suite, settings, shared)):
                    if left and made < rows:
                        left, made = left - 1, made + 1
                        yield {**item, "status": "contaminated"} if rng.random() < 0.05 else item


def _reduced(
    rng: random.Random,
    macs: float,
    base: float,
    score: float | None,
    suite: int,
    settings: int,
    shared: dict[str, Any],
) -> Iterator[Record]:
    from tests.synthetic import record

    for method in range(8):
        for setting in range(settings):
            kept, arrives = rng.uniform(0.3, 0.95), rng.uniform(0.4, 1.1)
            yield record(
                method=f"m{suite:02d}_{method}",
                setting=f"r={setting + 1}",
                macs=macs * kept,
                baseline_macs=macs,
                latency_ms=base * kept / arrives,
                accuracy=None if score is None else score - rng.uniform(-1, 4),
                noise=0.003,
                **shared,
            )


def fill(folder: Path, rows: int) -> int:
    """A results folder of that many records, written without waiting for the disk; how many there are."""
    store = Store(folder)
    store.records.mkdir(parents=True, exist_ok=True)
    count = 0
    for item in records(rows):
        path = store.record_path(item["case_key"], item["machine_key"])
        if not path.exists():
            write_json(path, seal(item))
            count += 1
    return count


def again(folder: Path) -> float:
    """Seconds of `job=report` as a process of its own."""
    command = [sys.executable, "-m", "bench", "job=report", "suite=vit_tokens"]
    command += [f"paths.results={folder / 'results'}", f"paths.site={folder / 'site'}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def verified(folder: Path) -> None:
    """Have every record verified and its head kept, as happens in a sweep or when records arrive."""
    Store(folder / "results").heads()


class Taken(NamedTuple):
    """Seconds of the clock and of the processor."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} ({self.processor:.1f})"


def timed(work: Callable[[], T]) -> tuple[T, Taken]:
    """What `work` gives, and how long this process and those that it ended took for it."""
    wall, processor = time.perf_counter(), _processor()
    found = work()
    return found, Taken(time.perf_counter() - wall, _processor() - processor)


def _processor() -> float:
    """Seconds of the processor, of this process and of the children that it waited for."""
    return sum(os.times()[:4])


def made(folder: Path, *, figure_seconds: float | None = FIGURE_SECONDS) -> SiteResult:
    """The site as `job=report` makes it."""
    return build(folder / "results", folder / "site", claims=suite_folders(), figure_seconds=figure_seconds)


def finish(folder: Path) -> None:
    """Make the site whole without drawing the figures of cases."""
    with mock.patch.object(case, "of_case", lambda *_: []):
        made(folder, figure_seconds=None)


def sizes(site: Path) -> dict[str, int]:
    """Bytes of the first page, and of the largest page and data file of a suite."""
    suites = list((site / "suites").iterdir())
    return {
        "first page": (site / "index.html").stat().st_size,
        "largest suite": max(path.stat().st_size for path in suites if path.suffix == ".html"),
        "its rows": max(path.stat().st_size for path in suites if path.name.endswith(".rows.js")),
        "its figures": max(path.stat().st_size for path in suites if path.name.endswith(".figures.js")),
        "search": (site / "assets" / "search.js").stat().st_size,
    }


def usable(site: Path) -> dict[str, float]:
    """Seconds until the first page and the largest suite have run their scripts; empty without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    if not CHROMIUM.exists():
        return {}
    largest = max((site / "suites").glob("*.html"), key=lambda path: path.stat().st_size)
    found = {}
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        for name, path in (("first page", site / "index.html"), ("largest suite", largest)):
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            started = time.perf_counter()
            page.goto(f"file://{path}")
            page.wait_for_selector(".finder:not([hidden])")
            page.evaluate("new Promise((ready) => requestAnimationFrame(() => setTimeout(ready)))")
            found[name] = time.perf_counter() - started
            page.close()
        browser.close()
    return found


def measure(rows: int) -> str:
    """The lines of one size, in Markdown."""
    with tempfile.TemporaryDirectory(prefix="waterline-site-") as place:
        folder = Path(place)
        count = fill(folder / "results", rows)
        _, once = timed(lambda: verified(folder))
        first, anew = timed(lambda: made(folder))
        finish(folder)
        fill(folder / "results", rows + SUITES)
        _, few = timed(lambda: made(folder))
        finish(folder)
        unchanged = [again(folder) for _ in range(3)]
        megabytes = ", ".join(f"{name} {size / 1e6:.2f}" for name, size in sizes(folder / "site").items())
        opened = ", ".join(f"{name} {seconds:.2f}" for name, seconds in usable(folder / "site").items())
    return (
        f"| {count} | {once} | {anew}, {first.brief} without figures | {few} | "
        f"{min(unchanged):.1f} to {max(unchanged):.1f} | {megabytes} | {opened or 'no browser'} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perf.site_speed", description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 10000])
    options = parser.parse_args(arguments)
    print("Seconds of the clock, in brackets of the processor.\n")
    print("| rows | verified | first build | with a few new ones | nothing new | MB | usable after |")
    print("|---|---|---|---|---|---|---|")
    for rows in options.rows:
        print(measure(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
