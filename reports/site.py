"""The report: a folder of static pages made from records, which opens from disk with the network off.

`build` reads the records once, makes every row, group and rank once, writes the first page, and then every page whose
content has changed since the last build. Nothing is measured and nothing is sent.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import plotly.offline

import bench.analysis.claims
from bench.analysis import history
from bench.analysis.table import from_records, read_records
from bench.canonical import BASELINE_METHOD, OWN_NETWORKS
from bench.config import cards as card_files
from bench.config.yaml_file import first_text
from bench.errors import ResultsError
from bench.store.records import Record, write_atomically
from bench.version import __version__
from reports import bibliography, footprint, fresh
from reports.addresses import INDEX
from reports.atlas import NOT_REPRODUCED, REPRODUCED
from reports.columns import CHANGE
from reports.content import Link, Side, Site
from reports.figures.theme import CONFIG, palettes
from reports.footprint import Rates
from reports.fronts import mark_fronts
from reports.groups import group, machine_title
from reports.left_out import is_wanted, or_told
from reports.manifest import Manifest, digest_of
from reports.pages import PAGES
from reports.published import publish
from reports.rows import Row, columns_of, page_name, rows_of
from reports.safe import inert_json, published, without_paths
from reports.scores import SCORES
from reports.standing import rank_rows
from reports.writing import Written, write

HERE = Path(__file__).resolve().parent
ASSETS = HERE / "assets"
#: Seconds that one build spends on pages with figures, in the order of suites, methods, networks and cases.
FIGURE_SECONDS = 5.0
NOT_STATED = Rates()
PAINT = HERE / "figures" / "paint.js"
#: How figures look in either theme, for the scripts of every page.
LOOK = {"palettes": palettes(), "config": CONFIG}
#: What pages are made by and with.
SOURCES = ((HERE, "**/*.py"), (HERE, "templates/*.j2"), (Path(bench.__file__).parent, "**/*.py"))
#: Where pages stand.
FOLDERS = ("assets", "cases", "suites", "methods", "models", "machines")


@dataclass(frozen=True)
class SiteResult:
    """Where the site is, which pages it has, what could not be read, and how long it took.

    `written` pages were made by this build; `brief` pages are still without figures, which the next build adds.
    """

    index: Path
    pages: list[Path]
    problems: list[str]
    seconds: float
    written: int
    brief: int


def build(
    results: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    suite: str | None = None,
    show_paths: bool = False,
    title: str | None = None,
    claims: Sequence[Path | str] = (),
    compare: tuple[str, str] | None = None,
    figure_seconds: float | None = FIGURE_SECONDS,
    rates: Rates = NOT_STATED,
) -> SiteResult:
    """The site of one or several results folders, written to `out`; unchanged case pages are kept.

    Args:
        results: results folders; several machines merge into one site.
        out: the folder of the site; it is made where it is missing.
        suite: only the rows of this suite.
        show_paths: keep paths of the machine in the pages; otherwise only their last parts are shown.
        title: the name of the site; else made from the suites' names.
        claims: folders of suites, each named as its suite, whose `claims.yaml` is judged against the suite's rows and
            whose `references.bib` is cited.
        compare: two keys of machines or two results folders, for the page that compares them; where it is not given and
            the rows come from exactly two machines, these are compared.
        figure_seconds: time for pages with figures; those beyond it get theirs from the next build, so that a store of
            thousands shows its tables at once. None: no limit.
        rates: the grid's intensity and the price of electricity, for carbon and cost where rows have energy.

    Raises:
        ResultsError: `out` cannot be written.
    """
    started, folder = time.perf_counter(), Path(out)
    roots = [Path(results)] if isinstance(results, (str, Path)) else [Path(item) for item in results]
    options = fresh.asked(
        folder, suite=suite, show_paths=show_paths, title=title, compare=compare, rates=astuple(rates)
    )
    inputs = fresh.Inputs(roots, claims, options)
    said = fresh.kept(folder, inputs)
    if said is not None:
        pages = [folder / page for page in said["pages"]]
        return SiteResult(folder / INDEX, pages, said["problems"], time.perf_counter() - started, 0, 0)
    look = inputs.look()
    with _without_collections():
        site = load(roots, suite=suite, show_paths=show_paths, title=title, claims=claims, compare=compare, rates=rates)
        site.docs = options["docs"]
        made, problems = _write(site, folder, figure_seconds, digest_of(options, __version__)), site.problems
        site.let_go()
        del site  # or the first collection would look through it
    if made.whole:
        fresh.remember(folder, look, made.paths, problems)
    pages, seconds = [folder / path for path in made.paths], time.perf_counter() - started
    return SiteResult(folder / INDEX, pages, problems, seconds, made.written, made.brief)


@contextmanager
def _without_collections() -> Iterator[None]:
    """No cycle collection meanwhile: with ten thousand records alive each one would cost a second and free nothing."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def load(
    roots: Sequence[Path],
    *,
    suite: str | None = None,
    show_paths: bool = False,
    title: str | None = None,
    claims: Sequence[Path | str] = (),
    compare: tuple[str, str] | None = None,
    rates: Rates = NOT_STATED,
) -> Site:
    """What the pages draw from: rows with their groups and ranks, newest record of each case and machine only."""
    loaded = read_records(list(roots))
    problems = list(loaded.problems)
    attempts = [item for item in loaded.records if suite in (None, item["case"].get("suite"))]
    followed = or_told(lambda: history.follow(attempts), history.History(()), "the history", problems)
    records = _newest(attempts)
    if not show_paths:
        records, problems = [published(record) for record in records], without_paths(problems)
    rows = rows_of(records, problems)
    of_footprint = footprint.add(rows, rates)
    judged = or_told(lambda: _judged(claims, records, rows), [], "the claims of the suites", problems)
    publish(rows, judged)
    groups, columns = group(rows), [*columns_of(rows), *of_footprint]
    rank_rows(rows, groups, columns)
    mark_fronts(rows, groups)
    site = Site(
        title=title or _title(rows, suite),
        rows=rows,
        groups=groups,
        columns=columns,
        problems=problems,
        roots=list(roots),
        claims=judged,
        references=or_told(
            lambda: [one for folder in claims for one in bibliography.load(folder)], [], "the references", problems
        ),
        show_paths=show_paths,
        sides=or_told(lambda: _sides(compare, records, show_paths), None, "the comparison", problems),
        cards=or_told(lambda: _cards(claims, rows), [], "the cards of the systems", problems),
        suite_titles=_suite_titles(claims, rows),
        history=followed,
        attempts=attempts,
    )
    site.navigation = [Link(page.title, page.path) for page in PAGES if page.path and is_wanted(site, page)]
    return site


#: The change of every score; a row has the one of its task.
_CHANGES = tuple(f"{name}{CHANGE}" for name in SCORES)


def _judged(folders: Sequence[Path | str], records: Sequence[Record], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The claims of the suites' papers with their verdicts, as plain data; scores are paired where rows are."""
    suites = {record["case"].get("suite") for record in records}
    listed = [
        claim for folder in folders if Path(folder).name in suites for claim in bench.analysis.claims.load(Path(folder))
    ]
    changes = {row.case_key: row.cells[name] for row in rows for name in _CHANGES if name in row.cells}
    paired = {
        key: (cell.value, cell.low, cell.high)
        for key, cell in changes.items()
        if cell.value is not None and cell.low is not None and cell.high is not None
    }
    if not listed:
        return []
    found = bench.analysis.claims.as_dicts(
        bench.analysis.claims.evaluate(listed, from_records(records), paired, records)
    )
    judged = any(claim["verdict"] in (REPRODUCED, NOT_REPRODUCED) for claim in found)
    return found if judged or not _is_of_own_models(rows) else []


def _cards(folders: Sequence[Path | str], rows: Sequence[Row]) -> list[card_files.Card]:
    """The cards of the suites that rows are of; where methods of ours were put on users' networks, of every suite."""
    lent = any(row.case.suite == OWN_NETWORKS and row.case.method != BASELINE_METHOD for row in rows)
    chosen = [Path(folder) for folder in folders] if lent else _with_rows(folders, rows)
    return [card for folder in chosen for card in card_files.read(folder)]


def _suite_titles(folders: Sequence[Path | str], rows: Sequence[Row]) -> dict[str, str]:
    """What each suite calls itself, by name."""
    files = {folder.name: folder / "suite.yaml" for folder in _with_rows(folders, rows)}
    own = {OWN_NETWORKS: "Your own networks"}
    return own | {name: title for name, file in files.items() if (title := first_text(file, "title"))}


def _with_rows(folders: Sequence[Path | str], rows: Sequence[Row]) -> list[Path]:
    suites = {row.case.suite for row in rows}
    return [Path(folder) for folder in folders if Path(folder).name in suites]


def _sides(named: tuple[str, str] | None, records: Sequence[Record], show_paths: bool) -> tuple[Side, Side] | None:
    """The two sides of the comparison; None where there are not two."""
    keys = named or tuple(sorted({record["machine_key"] for record in records}))
    if len(keys) != 2:
        return None
    first, second = (_side(str(key), records, show_paths) for key in keys)
    if first[0] == second[0]:
        first, second = (f"{first[0]} ({keys[0]})", first[1]), (f"{second[0]} ({keys[1]})", second[1])
    return first, second


def _side(key: str, records: Sequence[Record], show_paths: bool) -> Side:
    own = [record for record in records if record["machine_key"] == key]
    if own:
        return machine_title(own[0]), own
    found = read_records([Path(key)]).records
    return Path(key).name, found if show_paths else [published(record) for record in found]


def _newest(records: Iterable[Record]) -> list[Record]:
    """One record per page: of several of a case on a machine the one that started last."""
    latest: dict[str, Record] = {}
    for record in records:
        name = page_name(record)
        if name not in latest or str(latest[name]["started_at"]) <= str(record["started_at"]):
            latest[name] = record
    return list(latest.values())


def _is_of_own_models(rows: Sequence[Row]) -> bool:
    """Whether every row is of a network that was named by a path, so that the suite only lent its settings."""
    return bool(rows) and all(":" in row.case.model for row in rows)


def _title(rows: list[Row], suite: str | None) -> str:
    own = list(dict.fromkeys(row.model for row in rows)) if _is_of_own_models(rows) else []
    names = own or sorted({row.case.suite for row in rows}) or [suite or "no results yet"]
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")


def _write(site: Site, out: Path, figure_seconds: float | None, asked: str) -> Written:
    """Every page whose needs are met: the assets, then what changed.

    Args:
        site: what they draw from.
        out: the folder of the site.
        figure_seconds: see `build`.
        asked: a hash of what was asked for: another one makes every page again.
    """
    try:
        for folder in FOLDERS:
            (out / folder).mkdir(parents=True, exist_ok=True)
        assets = _assets(out / "assets")
        manifest = Manifest.read(out / "assets" / "manifest.json", base=digest_of(assets, asked))
        fresh.forget(out)
        made = write(site, out, manifest, figure_seconds)
        manifest.finish(out)
    except OSError as error:
        raise ResultsError(
            f"{out}: the site cannot be written ({error}); make room or give another folder with paths.site=..."
        ) from error
    return made


def _assets(folder: Path) -> str:
    """The three shared files, written where they differ; the digest of what the pages depend on."""
    scripts = [path.read_text(encoding="utf-8") for path in (PAINT, *sorted((ASSETS / "script").glob("*.js")))]
    files = {
        "plotly.min.js": plotly.offline.get_plotlyjs(),
        "waterline.js": "\n".join(['"use strict";', f"const LOOK = {inert_json(LOOK)};", *scripts]),
        "waterline.css": (ASSETS / "waterline.css").read_text(encoding="utf-8"),
    }
    for name, text in files.items():
        path, data = folder / name, text.encode()
        if not path.exists() or path.stat().st_size != len(data) or path.read_bytes() != data:
            write_atomically(path, data)
    return _source_digest()


def _source_digest() -> str:
    """Hash of the code and templates that make pages, and of what they compute with: other ones rebuild every page."""
    sources = sorted(path for room, pattern in SOURCES for path in room.glob(pattern))
    return digest_of(*(path.read_text(encoding="utf-8") for path in sources))
