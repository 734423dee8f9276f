"""Sweeps in MLflow: one parent run each, with configuration, report and the chart view of its cases."""

from __future__ import annotations

import json
import platform
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.canonical import digest
from bench.documentation import FOLDER as DOCUMENTATION
from bench.documentation import replaced
from bench.tracking.cases import PARAMS_PER_REQUEST, log_files
from bench.tracking.connection import UPLOAD_S, Connection, display
from bench.tracking.mlflow_view import VIEW_LIMIT, VIEW_TAG, view_key, view_state, view_url
from bench.tracking.single_page import one_page
from bench.tracking.tracked_run import CASE_KIND, KIND, NOTE_LIMIT, SWEEP_KIND, cut, plain

SITE_FILES, SITE_BYTES = 500, 100 * 2**20
#: Networks of a suite that get a view of their own.
MOST_MODELS = 40
NOTE = "mlflow.note.content"
#: How our description of an experiment begins; one that begins otherwise is the user's.
ABOUT = "**Waterline**: efficiency of neural networks, every number with unit, interval and definition."


class Sweeps:
    """The parent runs of an experiment and the view of their cases.

    Args:
        connection: to MLflow.
        seen: gives machine key and protocol hash of the latest record that was mirrored.
    """

    def __init__(self, connection: Connection, seen: Callable[[], tuple[str, str]]):
        self._connection, self._seen = connection, seen
        self._parent: str | None = None
        self._sweep: tuple[str, dict[str, Any], int] | None = None

    def start(self, suite: str, config: dict[str, Any], cases: int) -> None:
        """Begin a sweep: end what a killed driver left running; the parent run is made with its first case."""
        self._sweep, self._parent = (suite, config, cases), None
        with self._connection.guard("starting the sweep"):
            self._connection.connect()
            self._end_stale_parents()

    @property
    def suite(self) -> str:
        """Whose sweep it is."""
        return self._sweep[0] if self._sweep else "records"

    @property
    def has_run(self) -> bool:
        """Whether the sweep has a run of its own: it brought a case."""
        return self._parent is not None

    def parent(self) -> str:
        """The id of this sweep's run, made if there is none yet."""
        return self._parent or self._make_parent()

    def finish(self, site_index: Path | None, *, interrupted: bool) -> bool:
        """End the sweep's run with the report as its artifact; without new cases the last sweep's run gets it.

        Whether MLflow took all of it.
        """
        taken = False
        with self._connection.guard("ending the sweep", UPLOAD_S):
            self._connection.connect()
            if site_index is not None:
                self._log_site(self._parent or self._last_parent() or self._make_parent(), site_index)
            if self._parent is not None:
                self._connection.client.set_terminated(self._parent, "KILLED" if interrupted else "FINISHED")
            self._leave_view(finished=True)
            taken = True
        return taken

    def refresh(self, site_index: Path | None) -> None:
        """Leave the chart view of the cases so far and the report's first page on the run of a sweep that goes on."""
        if self._parent is None:
            return
        with self._connection.guard("refreshing the sweep"):
            self._connection.connect()
            page = None if site_index is None else self._shown_page(site_index)
            if page is not None:
                log_files(self._connection, self._parent, {"report.html": page})
            self._leave_view()

    def link(self, base: str) -> str:
        """The address that opens the sweep's cases as charts, all on one level; only the server's page while away."""
        with self._connection.guard("making the link"):
            self._connection.connect()
            suite = self._sweep[0] if self._sweep else ""
            key = view_key(suite) if suite and self._has_view(suite) else None
            return view_url(base, self._connection.experiment_id, self.case_filter(), key)
        return base

    def _make_parent(self) -> str:
        """Make the run of this sweep: its configuration as params and file, who drives it, and what to look at."""
        suite, config, cases = self._sweep or ("records", {}, 0)
        moment = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        tags = {
            KIND: SWEEP_KIND,
            "suite": suite,
            "cases": str(cases),
            "driver": _driver(),
            "mlflow.source.name": f"waterline-bench suite={suite}",
            "mlflow.source.type": "LOCAL",
            "mlflow.note.content": (
                f"A sweep of suite {suite}: {cases} cases, one child run each. "
                "The suite's page of the report is the artifact `report.html`; the whole report is the folder `site`."
            ),
        }
        created = self._connection.client.create_run(
            self._connection.experiment_id, tags=tags, run_name=f"sweep {suite} · {moment}"
        )
        self._parent = str(created.info.run_id)
        from mlflow.entities import Param

        shown = without_folders(config)
        params = [Param(name, cut(str(value), 500)) for name, value in _flatten(shown)][:PARAMS_PER_REQUEST]
        self._connection.client.log_batch(self._parent, params=params)
        log_files(self._connection, self._parent, {"config.json": json.dumps(shown, indent=1, sort_keys=True)})
        return self._parent

    def _last_parent(self) -> str | None:
        condition = f"tags.suite = '{self.suite}'"
        found = self._connection.search(f"tags.`{KIND}` = '{SWEEP_KIND}'", condition, newest=1)
        return str(found[0].info.run_id) if found else None

    def _end_stale_parents(self) -> None:
        """Mark as killed what a driver of this host that is no more left running."""
        for run in self._connection.search(f"tags.`{KIND}` = '{SWEEP_KIND}'", "attributes.status = 'RUNNING'"):
            if _is_dead(run.data.tags.get("driver", "")):
                self._connection.client.set_terminated(run.info.run_id, "KILLED")

    def _log_site(self, parent: str, index: Path) -> None:
        """The suite's page as one file that MLflow can show, and the report's folder, as one archive if it is large."""
        page = self._shown_page(index)
        if page is not None:
            log_files(self._connection, parent, {"report.html": page})
        parts = [path for path in index.parent.iterdir() if path.name != DOCUMENTATION]
        short = replaced(index.parent)
        files = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file()]
        if len(files) <= SITE_FILES and sum(path.stat().st_size for path in files) <= SITE_BYTES:
            for part in parts:
                add = self._connection.client.log_artifacts if part.is_dir() else self._connection.client.log_artifact
                add(parent, str(part), f"site/{part.name}" if part.is_dir() else "site")
            log_files(self._connection, parent, {f"site/{path}": text for path, text in short.items()})
            return
        with tempfile.TemporaryDirectory(prefix="waterline-") as place:
            archive = Path(place) / "site.zip"
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
                for path in sorted(files):
                    made.write(path, path.relative_to(index.parent))
                for name, text in short.items():
                    made.writestr(name, text)
            self._connection.client.log_artifact(parent, str(archive))

    def _shown_page(self, index: Path) -> str | None:
        """The page of the sweep's own suite as one file; the first page where the site has none of it."""
        own = index.parent / "suites" / f"{self._sweep[0] if self._sweep else ''}.html"
        return one_page(own if own.is_file() else index, index.parent)

    def case_filter(self) -> str:
        """The cases that belong on one chart: this suite's, on this machine, under this protocol."""
        conditions = [f"tags.`{KIND}` = '{CASE_KIND}'"]
        if self._sweep:
            conditions.append(f"tags.suite = '{self._sweep[0]}'")
        machine, protocol = self._seen()
        conditions += [f"tags.machine_key = '{machine}'"] if machine else []
        conditions += [f"tags.protocol_hash = '{protocol}'"] if protocol else []
        return " and ".join(conditions)

    def _leave_view(self, *, finished: bool = False) -> None:
        """Leave the chart view of this suite where the link finds it, if this sweep brought something to see.

        Views of single networks and the experiment's description follow when the sweep is finished.
        """
        if self._sweep is None or self._parent is None:
            return
        runs = self._connection.search(self.case_filter())
        suite = self._sweep[0]
        by_model: dict[str, list[Any]] = {}
        for run in runs:
            by_model.setdefault(run.data.tags.get("model", ""), []).append(run)
        self._keep_view(view_key(suite), self.case_filter(), runs)
        if not finished:
            return
        compared = sorted(model for model, own in by_model.items() if len(own) > 1 and _searchable(model))
        for model in compared[:MOST_MODELS] if len(by_model) > 1 else []:
            condition = f"{self.case_filter()} and tags.model = '{model}'"
            self._keep_view(view_key(suite, model), condition, by_model[model])
        self._describe_experiment()

    def _keep_view(self, key: str, search: str, runs: list[Any]) -> None:
        """Keep the chart view of these runs under a key, if MLflow takes it."""
        names = {name for run in runs for name in run.data.metrics}
        state = view_state(search, names)
        if names and len(state) <= VIEW_LIMIT:
            self._connection.client.set_experiment_tag(self._connection.experiment_id, VIEW_TAG + key, state)

    def _describe_experiment(self) -> None:
        """Say on the experiment what it is and where its views are; a description of the user's own is left alone."""
        client, number = self._connection.client, self._connection.experiment_id
        tags = client.get_experiment(number).tags
        if tags.get(NOTE, ABOUT).startswith(ABOUT):
            keys = sorted(tag.removeprefix(VIEW_TAG) for tag in tags if tag.startswith(f"{VIEW_TAG}waterline-"))
            client.set_experiment_tag(number, NOTE, experiment_note(number, keys))

    def _has_view(self, suite: str) -> bool:
        return VIEW_TAG + view_key(suite) in self._connection.client.get_experiment(self._connection.experiment_id).tags


def experiment_note(experiment_id: str | None, keys: Sequence[str]) -> str:
    """What an experiment says of itself: how to read it, and a link to every view that fits.

    Args:
        experiment_id: in MLflow.
        keys: under which views are kept.
    """
    lines = [
        f"{ABOUT} A parent run is a sweep: its `report.html` is the first page of the report, `site` the whole. A "
        "child run is a case. A run that was **disturbed** by other work is shown as killed, has the tag `disturbed`, "
        "and is not ranked.",
        "*Promised* is how many times fewer operations a case has than what it is compared with, *measured* how many "
        "times less time it takes, and *realised* the second over the first: at 1 all of the promise arrives. What "
        "every other quantity is, with its unit, stands in `site` on the page *How it was measured* (`methods.html`).",
        "Views:",
    ]
    for key in keys:
        link = view_url("", experiment_id, "", key)
        line = f"- [{plain(key.removeprefix('waterline-'))}]({link.removeprefix('/')})"
        if sum(map(len, lines)) + 2 * len(lines) + len(line) > NOTE_LIMIT:
            break
        lines.append(line)
    return "\n\n".join(lines[:3]) + "\n" + "\n".join(lines[3:])


def _searchable(model: str) -> bool:
    """Whether a search for this name can be written; MLflow's has no way to spell a quote or a backslash."""
    return bool(model) and not {"'", '"', "\\"} & set(model)


def _host() -> str:
    """A token of this host that does not tell its name."""
    return digest(platform.node())


def _driver() -> str:
    """This process, so that another can tell whether it still lives."""
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.0f}"


def _is_dead(driver: str) -> bool:
    """Whether a driver of this host has ended; drivers of other hosts are taken to live."""
    host, _, process = driver.partition(":")
    pid, _, born = process.partition(":")
    if host != _host() or not pid.isdigit() or not born.isdigit():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - int(born)) > 2
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def without_folders(value: Any) -> Any:
    """Configuration without the folders of this machine: of an absolute path only its last part stays."""
    if isinstance(value, dict):
        return {name: without_folders(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and re.match(r"^(/|~|[A-Za-z]:\\|\w+:///)", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return display(value) if isinstance(value, str) else value


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{name}.{key}" if name else str(key))
    elif name:
        yield re.sub(r"[^\w./ -]", "_", name), value
