"""How time and memory grow with records, runs in MLflow and cases on a simulated pool.

Run `python -m perf.scale` (`--records 1000 10000 100000`, `--mirror 400 1600`, `--pool 100 300 1000`; an empty list
leaves a part out). Every question is asked in a process of its own; memory is the most that the process had. The first
table of a folder makes its index, which all that follows use. `--uri` mirrors into a server instead of an SQLite file.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Sequence

from bench.host.environment import environment
from bench.store.index_file import NAME
from perf.scale import mirror, records
from perf.scale.apart import taken


def of_records(sizes: Sequence[int]) -> None:
    """Print what readers and the planner take, a row per question and a column per size."""
    columns: list[list[str]] = []
    for cases in sizes:
        with tempfile.TemporaryDirectory(prefix="waterline-scale-") as folder:
            size = taken("perf.scale.folder:fill", folder, cases).result
            cells = [f"{size / 1e6:.0f} MB"]
            for name in records.QUESTIONS:
                found = taken(f"perf.scale.records:{name}", folder, cases)
                cells.append(f"{found.seconds:.1f} s, {found.megabytes:.0f} MB")
            cells.append(f"{os.path.getsize(os.path.join(folder, 'results', NAME)) / 1e6:.0f} MB")
            columns.append(cells)
        print(f"{cases} records: {', '.join(cells)}", file=sys.stderr, flush=True)
    rows = ["files of records", *records.QUESTIONS.values(), "index"]
    _print_table(
        ["", *(f"{cases} records" for cases in sizes)],
        [[row, *cells] for row, *cells in zip(rows, *columns, strict=True)],
    )


def of_mirror(sizes: Sequence[int], uri: str) -> None:
    """Print what a record costs in MLflow in each quarter of so many."""
    rows = []
    for count in sizes:
        with tempfile.TemporaryDirectory(prefix="waterline-scale-") as folder:
            found = taken("perf.scale.mirror:mirrored", uri, folder, count)
            rows.append([str(count), *(f"{ms:.0f}" for ms in found.result), f"{found.megabytes:.0f}"])
    quarters = [f"quarter {number + 1} (ms per record)" for number in range(mirror.PORTIONS)]
    _print_table(["records", *quarters, "memory (MB)"], rows)


def of_pool(sizes: Sequence[int]) -> None:
    """Print what the driver of a simulated pool took."""
    rows = []
    for cases in sizes:
        found = taken("perf.scale.pool:swept", cases).result
        pieces = ", ".join(f"{name} {count}" for name, count in found["pieces"].items())
        rows.append([
            str(found["cases"]), str(found["records"]), str(found["lost"]), str(found["overlaps"]),
            f"{found['seconds']:.0f}", f"{found['driver_cpu_s']:.1f}", f"{found['driver_mb']:.0f}",
            f"{found['driver_grew_mb']:.0f}", pieces, "; ".join(found["problems"]) or "none",
        ])  # fmt: skip
    head = ["cases", "with a record", "losses", "overlaps", "seconds", "driver's processor (s)", "driver's memory (MB)"]
    _print_table([*head, "grown by (MB)", "pieces by node", "problems"], rows)


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |", flush=True)
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m perf.scale", description=str(__doc__).splitlines()[0])
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 10000, 100000])
    parser.add_argument("--mirror", type=int, nargs="*", default=[400, 1600])
    parser.add_argument("--pool", type=int, nargs="*", default=[100, 300, 1000])
    parser.add_argument("--uri", default="")
    options = parser.parse_args(arguments)
    here = environment("cpu")
    processor = here["cpu"]
    print(f"{processor['model']}, {processor['usable_cores']} cores, Python {platform.python_version()}; other")
    print(f"processes on the machine now: load {os.getloadavg()[0]:.1f}\n")
    if options.records:
        of_records(options.records)
    if options.mirror:
        of_mirror(options.mirror, options.uri)
    if options.pool:
        of_pool(options.pool)
    return 0


if __name__ == "__main__":
    sys.exit(main())
