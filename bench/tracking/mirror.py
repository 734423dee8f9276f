"""The mirror in MLflow: one parent run per sweep, one child per case; records stay the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.store.records import Record, Store
from bench.tracking.cases import Cases, Derive
from bench.tracking.connection import Connection
from bench.tracking.sweeps import Sweeps
from bench.tracking.ui import front


class Mirror:
    """A copy of records in MLflow; every method returns soon and none raises because of MLflow.

    Args:
        uri: `sqlite:///file`, `http(s)://server` or a database address that MLflow takes.
        experiment: the experiment's name; made if it is not there.
        artifact_root: where artifacts go; ignored for a server, which decides itself.
        results_root: the results folder; a ledger of what has been mirrored is kept in it.
        clock: seconds that only grow; replaced in tests.
        derive: gives metrics that follow from a record and the one that it is compared with, by `section/metric`.
        suite: whose records the experiment has; default every suite's.

    Raises:
        UsageError: the address is none that MLflow takes.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifact_root: Path | str,
        results_root: Path | str,
        clock: Callable[[], float] = time.monotonic,
        derive: Derive | None = None,
        suite: str | None = None,
    ):
        self.connection = Connection(uri, experiment, Path(artifact_root), Path(results_root), clock)
        self.sweeps = Sweeps(self.connection, lambda: self._cases.seen)
        self._cases = Cases(self.connection, Path(results_root), self.sweeps.parent, derive, suite)

    @property
    def uri(self) -> str:
        """The address of the mirror."""
        return self.connection.uri

    @property
    def problems(self) -> list[str]:
        """What the user should know: an outage that still lasts, records that MLflow would not take."""
        return self.connection.problems

    def start_sweep(self, suite: str, config: dict[str, Any], cases: int) -> None:
        """Begin a sweep: end what a killed driver left running; the parent run is made with its first case.

        Args:
            suite: the suite's name.
            config: the composed configuration, plain JSON types.
            cases: how many cases the sweep has, present ones included.
        """
        self.sweeps.start(suite, config, cases)

    def log_record(self, record: Record) -> None:
        """Mirror one record, unless it is there already; while MLflow is away the record stays pending."""
        self._cases.log(record)

    def pending(self, store: Store) -> Sequence[Record]:
        """The readable records of a results folder that this place does not have; asks a server that was away again."""
        return self._cases.pending(store)

    def refresh(self, site_index: Path | None = None) -> None:
        """Leave the chart view of the cases so far, and the report's first page, on the sweep's run while it goes on.

        Args:
            site_index: the report's first page; brought as one file, the whole folder follows at the end.
        """
        self.sweeps.refresh(None if site_index is None else Path(site_index))

    def is_settled(self, store: Store, suite: str, report: str | None = "") -> bool:
        """Whether an earlier sweep ended here with every record and this report, told without opening MLflow.

        False where only a server could tell.

        Args:
            store: of the results folder.
            suite: the suite's name.
            report: what tells the report from others; empty for none, None where that is not known.
        """
        return self._cases.is_settled(store, suite, report)

    def finish(self, site_index: Path | None = None, *, interrupted: bool = False, report: str | None = None) -> None:
        """End the sweep's run with the report as its artifact; without new cases the last sweep's run gets it.

        A report that is there is not uploaded again.

        Args:
            site_index: the report's first page; its folder is uploaded whole, or as one archive if it is large.
            interrupted: the sweep was stopped before its end.
            report: what tells the report from others; empty for none, None where that is not known.
        """
        known = not self.sweeps.has_run and self._cases.has_ended(self.sweeps.suite, report)
        page = None if site_index is None or known else Path(site_index)
        if self.sweeps.finish(page, interrupted=interrupted) and not known:
            self._cases.end(self.sweeps.suite, report)

    def link(self, base: str | None = None) -> str:
        """The address that opens the sweep's cases as charts, all on one level; only the server's page while away.

        Args:
            base: where the interface is served; default the server, or this machine's port 5000 for a database.
        """
        return self.sweeps.link((base or front(self.connection.uri)).rstrip("/"))
