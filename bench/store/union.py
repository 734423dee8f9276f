"""The union of records from anywhere: results folders and bundles merged into one results folder, each record once.

Everything is read and set side by side before anything is written, so that a refusal leaves the folder as it was. What
came in is not told to the journal as measured here: rows of other machines stay foreign (`bench.app.sources`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import ResultsError, UsageError
from bench.store import bundle, classes
from bench.store.foreign import MOST_JSON_BYTES, parse, unpacked
from bench.store.journal import Journal
from bench.store.lock import ResultsLock
from bench.store.records import Store, identities, read_calibration, write_atomically

#: What of a samples file was measured; the rest (times of day, labels, the host) may lose personal parts on its way.
_MEASURED = ("cases", "twin", "reference_gemm")


class Contradiction(ResultsError):
    """Two files say different things of one measurement."""


@dataclass
class Merged:
    """What a merge did: new records and samples, what was there already, and files that could not be read."""

    records: int = 0
    known: int = 0
    samples: int = 0
    calibrations: int = 0
    machines: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


#: A timed process: its number in its session, and when it was started.
_Process = tuple[int, Any]


@dataclass(frozen=True)
class _Found:
    """A record where it lies, with what tells measurements apart.

    Attributes:
        hashes: that it goes by.
        processes: medians of its timed processes.
        counted: its exact readings by metric and part.
    """

    root: Path
    path: Path
    record_key: str
    case_key: str
    machine_key: str
    started_at: str
    finished_at: str
    session: str | None
    hashes: frozenset[str]
    supersedes: str | None
    samples: tuple[str, ...]
    processes: dict[_Process, Any]
    counted: dict[tuple[str, str], Any]

    @property
    def measurement(self) -> tuple[str, str]:
        """What records of one measurement have in common: a case here in this session, or untimed from then to then."""
        return self.record_key, self.session or f"{self.started_at} to {self.finished_at}"


def merge(sources: Sequence[Path | str], target: Path | str) -> Merged:
    """Every record of the sources that is not in the target yet, with its samples and calibrations, put there once.

    A record and its copy without personal parts are one, whichever came first; what another record supersedes stays
    behind. Two sessions of one case are two records and both stay: they are its history. Of calibrations of one machine
    the newest stays. The target's lock is held meanwhile.

    Args:
        sources: results folders and bundles.
        target: a results folder; made if it is not there.

    Raises:
        UsageError: a source is not there, is neither, or is the target.
        BadBundle: a bundle does not pass every check.
        Contradiction: two files tell one measurement differently; nothing was written.
        ResultsError: the target cannot be written, or another driver works on it.
    """
    into = Store(target)
    with ExitStack() as stack:
        roots = [_opened(Path(source), into.root, stack) for source in sources]
        stack.enter_context(ResultsLock(into.root))
        done = Merged()
        own = _records(into, done.problems)
        others = [found for root in roots for found in _records(Store(root), done.problems)]
        _check_records([*own, *others])
        coming = _new(own, others)
        done.known = len(others) - len(coming)
        samples = list(_samples(into, others))
        _put(into, coming, samples, done)
        for root in roots:
            done.calibrations += _put_calibrations(root, into)
        _put_classes([into.root, *roots], into)
        done.machines = tuple(sorted({found.machine_key for found in [*own, *others]}))
        told = {"records": done.records, "known": done.known, "samples": done.samples}
        Journal(into.journal).append("merged", sources=[Path(source).name for source in sources], **told)
    return done


def _opened(source: Path, target: Path, stack: ExitStack) -> Path:
    """The results folder that a source is or unpacks to, beside the target's disk until the merge is over."""
    if (source / "records").is_dir():
        if source.resolve() == target.resolve():
            raise UsageError(f"sources: {source} is the folder that is merged into; name the others alone")
        return source
    if source.is_file() and source.suffix == ".zip":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="waterline-merge-")))
        return bundle.unpack(source, folder).root
    what = "holds no records" if source.is_dir() else "is not there" if not source.exists() else "is neither"
    raise UsageError(f"sources: {source} {what}; name results folders (with a folder named records) or bundles (.zip)")


def _records(store: Store, problems: list[str]) -> list[_Found]:
    return [_found(store.root, path, _outline(record)) for path, record in store.files(problems)]


def _outline(record: dict[str, Any]) -> dict[str, Any]:
    """The little of a record that is kept in memory."""
    timing = record.get("timing") or {}
    keys = ("record_key", "case_key", "machine_key", "started_at", "finished_at")
    names = (*keys, "content_hash", "redacted_from", "supersedes")
    runs = timing.get("invocations") or []
    return {
        **{name: record.get(name) for name in names},
        "session": timing.get("session"),
        "samples": tuple(str(run["samples_file"]) for run in runs if run.get("samples_file")),
        "processes": {(run["index"], run.get("started_at")): run.get("median_ms") for run in runs},
        "counted": {
            (item["metric"], str(item.get("part") or "")): item["value"]
            for item in record["readings"]
            if item["provenance"] == "counted"
        },
    }


def _found(root: Path, path: Path, outline: dict[str, Any]) -> _Found:
    kept = {name: value for name, value in outline.items() if name not in ("content_hash", "redacted_from")}
    return _Found(root, path, hashes=frozenset(identities(outline)), **kept)


def _check_records(found: Sequence[_Found]) -> None:
    """Raise Contradiction if two records are of one measurement and cannot both be true."""
    first: dict[tuple[str, str], list[_Found]] = {}
    for one in found:
        others = first.setdefault(one.measurement, [])
        for other in others:
            if not _agree(one, other):
                raise Contradiction(_told(other, one))
        others.append(one)


def _agree(one: _Found, other: _Found) -> bool:
    """Whether two records of one measurement can both be true.

    They are one record, or one follows the other; or they are a session that was continued in two copies of its folder,
    which tell the processes that both have alike (`bench.analysis.timings.unshared` counts those once). Untimed ones
    may be of two equal machines, which have one key: then what is counted is equal.
    """
    if one.hashes & other.hashes or one.supersedes in other.hashes or other.supersedes in one.hashes:
        return True
    if not one.processes and not other.processes:
        return one.counted == other.counted
    both = one.processes.keys() & other.processes.keys()
    if both == one.processes.keys() == other.processes.keys():
        return False
    return all(one.processes[process] == other.processes[process] for process in both)


def _told(one: _Found, other: _Found) -> str:
    return (
        f"{one.path} and {other.path} are both the record of case {one.case_key} on machine {one.machine_key} started "
        f"at {other.started_at}, and say different things of it: one was changed after it was measured. Nothing was "
        "merged; leave out the source that is not the machine's own"
    )


def _new(own: Sequence[_Found], others: Sequence[_Found]) -> list[_Found]:
    """The records to be put in the target, oldest first, each once, none that another one supersedes."""
    replaced = {(one.record_key, one.supersedes) for one in [*own, *others] if one.supersedes}
    known = {name for one in own for name in one.hashes}
    coming: list[_Found] = []
    for one in sorted(others, key=lambda one: (one.started_at, one.record_key, str(one.path))):
        if one.hashes & known:
            continue
        known |= one.hashes
        if not {(one.record_key, name) for name in one.hashes} & replaced:
            coming.append(one)
    return coming


def _samples(into: Store, found: Sequence[_Found]) -> Iterator[tuple[str, Path]]:
    """Name and file of every samples file that is not in the target yet, also of records that came without before.

    Raises:
        Contradiction: a samples file of that name says something else.
    """
    chosen: dict[str, Path] = {}
    for one in found:
        for name in one.samples:
            path = one.root / name
            if not path.is_file() or path.is_symlink():
                continue
            earlier = chosen.get(name, into.root / name)
            if earlier.is_file() and not _same_samples(earlier, path):
                raise Contradiction(
                    f"{earlier} and {path} are samples of one name and differ: one was changed after it was measured, "
                    "or its session went on in two copies of a folder. Nothing was merged; leave one of them out"
                )
            if not earlier.is_file():
                chosen[name] = path
                yield name, path


def _same_samples(one: Path, other: Path) -> bool:
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        return True
    try:
        left, right = (_measured(data, path) for data, path in ((first, one), (second, other)))
    except (ValueError, OSError, EOFError):
        return False
    return left == right


def _measured(data: bytes, path: Path) -> Any:
    value = parse(unpacked(data, MOST_JSON_BYTES) if path.suffix == ".gz" else data, MOST_JSON_BYTES)
    return {name: value.get(name) for name in _MEASURED} if isinstance(value, dict) else value


def _put(into: Store, coming: Sequence[_Found], samples: Sequence[tuple[str, Path]], done: Merged) -> None:
    """Write the samples and then the records that name them.

    Raises:
        ResultsError: the disk is full or read-only.
    """
    try:
        for name, path in samples:
            write_atomically(into.root / name, path.read_bytes())
            done.samples += 1
        for one in coming:
            into.put_copy(one.case_key, one.machine_key, one.path.read_bytes())
            done.records += 1
    except OSError as error:
        raise ResultsError(
            f"{into.root}: cannot be written ({error.strerror or error}); make room and run the same command again: "
            "what came in is kept, and nothing comes in twice"
        ) from error


def _put_calibrations(root: Path, into: Store) -> int:
    """Keep every calibration that is newer than the target's own; how many."""
    count = 0
    for path in sorted(Store(root).machines.glob("*.json")):
        found, own = read_calibration(path), read_calibration(into.machines / path.name)
        if found is None or path.is_symlink():
            continue
        if own is None or float(found.get("measured_at") or 0) > float(own.get("measured_at") or 0):
            write_atomically(into.machines / path.name, path.read_bytes())
            count += 1
    return count


def _put_classes(roots: Sequence[Path], into: Store) -> None:
    """Join the machines of every label of a pool."""
    joined = classes.joined(classes.read(root) for root in roots)
    if joined and joined != classes.read(into.root):
        classes.write(into.root, joined)
