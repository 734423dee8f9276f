"""A run in one archive, for publishing or keeping: records, raw samples, report and a manifest with checksums.

A bundle is a zip file with `manifest.json`, `records/`, `samples/`, `machines/`, `site/` and, from a pool, `pool.json`.
Checksums show damage and carelessness; they are no signature, and whoever makes a bundle can make its checksums.
Nothing in a bundle is ever run: reading one means parsing JSON of bounded size under names that were checked first.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bench.documentation import FOLDER as DOCUMENTATION
from bench.documentation import replaced
from bench.errors import ResultsError
from bench.foreign_files import open_regular
from bench.host.personal import leaks, redacted, without_personal
from bench.moment import utc_millisecond
from bench.plan.case import Case
from bench.reading import STATUSES, Reading
from bench.store import classes
from bench.store.foreign import MOST_JSON_BYTES, CorruptRecord, checked, parse, read_json, unpacked
from bench.store.records import Record, Store, check, is_calibration, write_atomically
from bench.store.schema import Manifest
from bench.version import __version__

SCHEMA = 1
KIND = "waterline bundle"
MANIFEST = "manifest.json"
FOLDERS = ("records", "samples", "machines", "site")

#: What a bundle may hold; more is refused before it is unpacked.
MAX_FILES = 200_000
MAX_FILE_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 4 * 2**30
#: Bytes of JSON in one record, samples or calibration file; `bench.store.foreign` says what parsing it costs.
MAX_JSON_BYTES = MOST_JSON_BYTES
MAX_MANIFEST_BYTES = 48 * 2**20
#: Bytes of the archive's own table of contents, which is read before anything of it can be looked at.
MAX_DIRECTORY_BYTES = 64 * 2**20
#: Bytes of JSON in all records of a bundle where they are kept in memory together, to be compared or measured again.
MAX_KEPT_JSON_BYTES = 256 * 2**20
#: Letters of a name, of each part of it, and how many parts: what every file system and our temporary names have room
#: for.
MAX_NAME, MAX_PART, MAX_DEPTH = 400, 200, 12
_PIECE = 1 << 20

EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first date: equal content makes equal archives
#: What reading damaged archives, compressed data and JSON raises (RuntimeError: encrypted, recursion, not implemented).
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError)

RECORD_NAME = re.compile(r"records/[\w-]+(\.[\w-]+)+\.json")
TEXTS = frozenset({".html", ".json", ".csv", ".md", ".svg", ".txt", ".bib"})


class BadBundle(ResultsError):
    """A bundle that is damaged, or that tries something a bundle has no reason to do."""


@dataclass(frozen=True)
class Verification:
    """What verifying a bundle found, good if there are no problems; its good records by the hashes of their content."""

    path: Path
    files: int
    records: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.problems


# -- packing ----------------------------------------------------------------------------------------------------------


def pack(
    store_root: Path | str,
    site: Path | str | None,
    out: Path | str,
    *,
    private: bool = False,
    problems: list[str] | None = None,
) -> Path:
    """The archive of a results folder and its report, written whole or not at all.

    Folders, user and host names are taken out of records and samples; a changed record is resealed and names the
    hash it had under `redacted_from`. Links are never followed. One file at a time is read and none is kept: the memory
    that it takes is that of the largest, and some hundred bytes for each of the others.

    Args:
        store_root: the results folder.
        site: the report's folder, or `None` for no report.
        out: the archive to write.
        private: keep what tells whose machine it was.
        problems: gets a line per file that could not be read and was left out; without it the first one raises.

    Raises:
        ResultsError: there are no records, there is more than a bundle may hold, or the report names folders or people
            and `private` was not asked for.
    """
    store, target = Store(store_root), Path(out)
    sources = _store_sources(store, problems)
    if not any(name.startswith("records/") for name in sources):
        raise ResultsError(f"{store.root}: there are no records to pack")
    short: dict[str, bytes] = {}
    if site is not None:
        sources |= _site_sources(Path(site))
        short = {f"site/{path}": page.encode() for path, page in replaced(Path(site)).items()}

    def content(name: str) -> bytes | None:
        if name in short:
            return short[name]
        if name.startswith("site/"):
            return _of_site(sources[name], Path(str(site)), store.root, private)
        try:
            return _packed(name, sources[name], private)
        except CorruptRecord as error:
            if problems is None:
                raise
            problems.append(str(error))
            return None

    target.parent.mkdir(parents=True, exist_ok=True)
    _write_zip(target, [*sources, *short], content, private)
    return target


def _store_sources(store: Store, problems: list[str] | None) -> dict[str, Path]:
    """Name in the bundle -> file: records that no other supersedes, the samples they name, the machines' calibrations.

    A record of an older schema keeps its old body, which is what its hash is of.
    """
    samples: set[str] = set()
    attempts: Counter[str] = Counter()
    sources: dict[str, Path] = {}
    for path, record in store.files(problems):
        runs = (record.get("timing") or {}).get("invocations") or []
        samples.update(str(run["samples_file"]) for run in runs if run.get("samples_file"))
        key = f"{record['case_key']}.{record['machine_key']}"
        attempts[key] += 1
        sources[f"records/{key}.json" if attempts[key] == 1 else f"records/{key}.{attempts[key]}.json"] = path
    for name in sorted(samples):
        path = store.root / name
        if name.startswith("samples/") and _why_bad_name(name) is None and path.is_file() and not path.is_symlink():
            sources[name] = path
    machines = {
        f"machines/{path.name}": path for path in sorted(store.machines.glob("*.json")) if not path.is_symlink()
    }
    labels = {classes.FILE: store.root / classes.FILE} if classes.read(store.root) else {}
    return sources | machines | labels


def _packed(name: str, path: Path, private: bool) -> bytes:
    """A file as it goes into the bundle.

    Raises:
        CorruptRecord: it cannot be read, or a bundle that holds it would be refused.
    """
    value = read_json(path)
    if name.startswith("machines/") and not is_calibration(value):
        raise CorruptRecord(f"{path}: is no calibration; make it again with job=calibrate")
    if name == classes.FILE:
        return _dump(classes.read(path.parent))
    if not private:
        value = redacted(value) if name.startswith("records/") else without_personal(value)
    data = _dump(value)
    if len(data) > MAX_JSON_BYTES:
        raise CorruptRecord(f"{path}: holds {len(data)} bytes of JSON; a bundle's files hold at most {MAX_JSON_BYTES}")
    return gzip.compress(data, mtime=0) if name.startswith("samples/") else data


def _check_limits(entries: list[zipfile.ZipInfo]) -> None:
    """Raise ResultsError, with what to do, unless verifying would read all of it."""
    problems = _listing_problems(entries)
    if problems:
        raise ResultsError(
            f"a bundle of this would be refused: {problems[0]}; leave the report out with report=off, or measure "
            "suites into results folders of their own"
        )


def _site_sources(site: Path) -> dict[str, Path]:
    """Name in the bundle -> file of the report; links are left out, and the documentation beside it (`site/docs`)."""
    return {
        f"site/{path.relative_to(site).as_posix()}": path
        for path in sorted(site.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and path.relative_to(site).parts[0] != DOCUMENTATION
        and not any(part.is_symlink() for part in path.parents if part != site)
    }


def _of_site(path: Path, site: Path, results: Path, private: bool) -> bytes:
    """A file of the report as it is, if it tells nothing about whose machine it was.

    Raises:
        ResultsError: it does, or it is larger than a bundle's files may be.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ResultsError(f"{path}: holds {size} bytes; a bundle's files hold at most {MAX_FILE_BYTES}")
    data = path.read_bytes()
    if not private and path.suffix in TEXTS:
        found = leaks(data.decode(errors="replace"), (results.resolve(), site.resolve()))
        if found:
            raise ResultsError(
                f"{path}: the report names {found!r}; build it again with report.show_paths=false, "
                "or pack with report.show_paths=true"
            )
    return data


def _write_zip(target: Path, names: Sequence[str], content: Callable[[str], bytes | None], private: bool) -> None:
    """The archive in a temporary file, then renamed, so that half an archive never bears the name.

    Args:
        target: the archive.
        names: of its files, in order; the manifest is written last.
        content: what a file holds; None leaves it out.
        private: what the manifest says of it.
    """
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                rows = [row for name in names if (row := _written(archive, name, content(name))) is not None]
                _written(archive, MANIFEST, _manifest_of(rows, private))
                archive.filelist.sort(
                    key=lambda entry: (entry.filename != MANIFEST, entry.filename)
                )  # of its table of contents
                _check_limits(archive.infolist())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _written(archive: zipfile.ZipFile, name: str, data: bytes | None) -> dict[str, Any] | None:
    """A file's line of the manifest, once it is in the archive; None for one that is left out.

    Raises:
        ResultsError: it is one more than a bundle may hold.
    """
    if data is None:
        return None
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o644) << 16
    archive.writestr(info, data)
    if (
        archive.fp is not None and archive.fp.tell() > MAX_TOTAL_BYTES
    ):  # packed already: the limit is on what it unpacks to
        _check_limits(archive.infolist())
    return {"path": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _manifest_of(rows: list[dict[str, Any]], private: bool) -> bytes:
    value = {
        "schema": SCHEMA,
        "kind": KIND,
        "created_at": utc_millisecond(),
        "code_version": __version__,
        "private": private,
        "files": rows,
    }
    return json.dumps(value, indent=1).encode()


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


# -- verifying and reading --------------------------------------------------------------------------------------------


def verify(path: Path | str) -> Verification:
    """What is wrong with a bundle: names, sizes, links, checksums, hashes and schema of every record.

    Nothing is written and nothing in the bundle is run. A bundle whose table of contents is hostile is not opened any
    further. One file at a time is looked at and none is kept: the memory that it takes is that of the largest.

    Args:
        path: the archive.
    """
    return _verified(Path(path), None)


def _verified(path: Path, kept: list[Record] | None) -> Verification:
    """What `verify` finds; good records go into `kept`, if there is such a list, as long as they are not too many."""
    try:
        with _opened(path) as archive:
            entries = archive.infolist()
            problems = _listing_problems(entries)
            if problems:
                return Verification(path, len(entries), (), tuple(problems))
            hashes, problems = _content(archive, {entry.filename: entry for entry in entries}, kept)
    except DAMAGE as error:
        return Verification(path, 0, (), (f"cannot be read as a zip archive: {error}",))
    return Verification(path, len(entries), tuple(hashes), tuple(problems))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, whose table of contents is of bounded size.

    Raises:
        ValueError: it is not; also what damaged archives raise (`DAMAGE`).
    """
    with open_regular(path) as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # what ZipFile reads first: it then takes what that says
        if end is None:
            raise zipfile.BadZipFile("File is not a zip file")
        size = end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
        if size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its table of contents has {size} bytes; at most {MAX_DIRECTORY_BYTES} are read")
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield archive


def unpack_records(path: Path | str) -> list[Record]:
    """The records of a bundle that passes every check, in the present schema.

    Raises:
        BadBundle: it does not pass; the message tells the first problems.
    """
    records: list[Record] = []
    _refuse(_verified(Path(path), records))
    return records


def _refuse(report: Verification) -> None:
    """Raise BadBundle unless the report is good."""
    if not report.ok:
        more = f" (and {len(report.problems) - 3} more)" if len(report.problems) > 3 else ""
        what = "; ".join(report.problems[:3]) + more
        raise BadBundle(f"{report.path}: {what}; get the bundle again from whoever made it")


def unpack(path: Path | str, folder: Path | str) -> Store:
    """A results folder made of a bundle's records, samples and calibrations; what is there already stays as it is.

    Records merge as a union: one that is not there goes into a file of its own, also beside another of the same case.

    Args:
        path: a bundle that passes every check.
        folder: where to put them; made if it is not there.

    Raises:
        BadBundle: the bundle does not pass.
    """
    _refuse(verify(path))
    store = Store(folder)
    with _opened(Path(path)) as archive:
        for entry in sorted(archive.infolist(), key=lambda entry: (len(entry.filename), entry.filename)):
            target, kind = store.root / entry.filename, entry.filename.split("/")[0]
            if kind == "records":
                data = read_member(archive, entry)
                store.adopt(check(parse(data, MAX_JSON_BYTES), entry.filename), data)
            elif kind in ("samples", "machines") and not target.exists():
                write_atomically(target, read_member(archive, entry))
            elif entry.filename == classes.FILE:
                found = parse(read_member(archive, entry), MAX_JSON_BYTES)
                classes.write(store.root, classes.joined([classes.read(store.root), found]))
    return store


def _listing_problems(entries: list[zipfile.ZipInfo]) -> list[str]:
    """What is wrong with the table of contents alone."""
    problems = []
    if len(entries) > MAX_FILES:
        return [f"holds {len(entries)} files; at most {MAX_FILES} are read"]
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL_BYTES:
        problems.append(f"unpacks to {total} bytes; at most {MAX_TOTAL_BYTES} are read")
    seen: set[str] = set()
    for entry in entries:
        why = _why_bad_name(entry.filename) or _why_bad_entry(entry)
        if why is None and entry.filename.lower() in seen:
            why = "appears twice"
        seen.add(entry.filename.lower())
        if why:
            problems.append(f"{_shown(entry.filename)}: {why}")
    folders = {str(folder) for name in seen for folder in PurePosixPath(name).parents}
    return problems + [f"{_shown(name)}: is a file and a folder of others" for name in sorted(seen & folders)]


def _why_bad_name(name: str) -> str | None:
    """Why a name may not be in a bundle, or `None`."""
    path = PurePosixPath(name)
    if not name or name != str(path) or re.search(r"[\x00-\x1f\\:]", name):
        return "is no plain relative name"
    if path.is_absolute() or ".." in path.parts:
        return "leads out of the bundle"
    if len(name) > MAX_NAME or len(path.parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART for part in path.parts):
        return "is longer or deeper than files are named"
    if name not in (MANIFEST, classes.FILE) and (len(path.parts) < 2 or path.parts[0] not in FOLDERS):
        return "has no place in a bundle"
    return None


def _why_bad_entry(entry: zipfile.ZipInfo) -> str | None:
    """Why an entry is not a plain file of sensible size, or `None`."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or something else that is no plain file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that bundles are not"
    most = _most_bytes(entry.filename)
    if entry.file_size > most:
        return f"unpacks to {entry.file_size} bytes; at most {most} are read"
    return None


def _most_bytes(name: str) -> int:
    """Bytes that a file of a bundle may have: of what is parsed fewer than of a page's parts."""
    if name == MANIFEST:
        return MAX_MANIFEST_BYTES
    return MAX_FILE_BYTES if name.startswith("site/") else min(MAX_FILE_BYTES, MAX_JSON_BYTES)


def _content(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], kept: list[Record] | None
) -> tuple[list[str], list[str]]:
    """The content hashes of the good records, which go into `kept`, and what is wrong with the files."""
    if MANIFEST not in entries:
        return [], [f"has no {MANIFEST}"]
    listed, problems = _manifest(read_member(archive, entries[MANIFEST]))
    names = set(entries) - {MANIFEST}
    problems += [f"{_shown(name)}: is listed but missing" for name in sorted(set(listed) - names)]
    problems += [f"{_shown(name)}: is there but not listed" for name in sorted(names - set(listed))]
    records = sum(entries[name].file_size for name in names if name.startswith("records/"))
    if kept is not None and records > MAX_KEPT_JSON_BYTES:
        return [], [
            *problems,
            f"holds {records} bytes of records; at most {MAX_KEPT_JSON_BYTES} are read at once: unpack it",
        ]
    hashes = []
    for name in sorted(names & set(listed)):
        try:
            record, problem = _looked_at(archive, entries[name], listed[name])
        except DAMAGE as error:
            record, problem = None, f"cannot be unpacked: {error}"
        if record is not None:
            hashes.append(str(record["content_hash"]))
            if kept is not None:
                kept.append(record)
        problems += [f"{_shown(name)}: {problem}"] if problem else []
    return hashes, problems


def _looked_at(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, listed: tuple[int, str]
) -> tuple[Record | None, str | None]:
    """The record in a file (if it is one) and what is wrong with the file; a page's part is only checksummed."""
    if entry.filename.startswith("site/"):
        return None, None if _checksum(archive, entry) == listed else "does not match its checksum"
    data = read_member(archive, entry)
    if listed != (len(data), hashlib.sha256(data).hexdigest()):
        return None, "does not match its checksum"
    return _inspect(entry.filename, data)


def _checksum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, str]:
    """Size and SHA-256 of an entry, piece by piece."""
    made, size = hashlib.sha256(), 0
    with archive.open(entry) as file:
        while size <= entry.file_size and (piece := file.read(_PIECE)):
            made.update(piece)
            size += len(piece)
    return size, made.hexdigest()


def _manifest(data: bytes) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Name to size and checksum, and what is wrong with the manifest."""
    try:
        manifest = parse(data, MAX_MANIFEST_BYTES)
        if not isinstance(manifest, dict) or (manifest.get("kind"), manifest.get("schema")) != (KIND, SCHEMA):
            return {}, [f"{MANIFEST}: is not of a {KIND} of schema {SCHEMA}: update waterline-bench to read newer ones"]
        checked(Manifest, manifest, MANIFEST)
    except CorruptRecord as error:
        return {}, [str(error)]
    except ValueError as error:
        return {}, [f"{MANIFEST}: cannot be understood: {error}"]
    return {file["path"]: (file["bytes"], file["sha256"]) for file in manifest["files"]}, []


def _inspect(name: str, data: bytes) -> tuple[Record | None, str | None]:
    """The record in a file (if it is one) and what is wrong with the file."""
    try:
        if name.startswith("records/"):
            if not RECORD_NAME.fullmatch(name):
                return None, "is no name of a record"
            record = check_record(parse(data, MAX_JSON_BYTES), name)
            own = rf"records/{re.escape(record['record_key'])}(\.([2-9]|[1-9][0-9]{{1,8}}))?\.json"
            return (record, None) if re.fullmatch(own, name) else (None, "is not named after the record in it")
        if name.startswith("samples/"):
            parse(unpacked(data, MAX_JSON_BYTES), MAX_JSON_BYTES)
        else:
            return None, _why_no_facts(name, parse(data, MAX_JSON_BYTES))
    except CorruptRecord as error:
        return None, str(error)
    except (*DAMAGE, KeyError, TypeError, AttributeError) as error:
        return None, f"cannot be understood: {error!r}"
    return None, None


def _why_no_facts(name: str, value: Any) -> str | None:
    """Why this does not tell of machines what its name says, or None."""
    if name == classes.FILE:
        return None if classes.is_classes(value) else "does not say which machines are of which class"
    return None if is_calibration(value) else "is no calibration of a machine"


def check_record(value: Any, where: str) -> Record:
    """The record, whose hash, schema, case, status and readings have been checked one by one.

    Raises:
        CorruptRecord: it is not a record, was edited, or is of an unknown schema.
        ValueError: one of its parts is not what it should be; also KeyError or TypeError for missing or odd ones.
    """
    record = check(value, where)
    case = Case.from_dict(record["case"])
    if not all(isinstance(text, str) for text in (case.suite, case.model, case.method, case.setting)):
        raise ValueError("the case's names are not texts")
    if record["status"] not in STATUSES:
        raise ValueError(f"status {record['status']!r} is not known")
    for row in record["readings"]:
        Reading(**row)
    for part in ("case_key", "group_key", "baseline_key", "machine_key"):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", record[part]):
            raise ValueError(f"{part} is no key")
    if record["record_key"] != f"{record['case_key']}.{record['machine_key']}":
        raise ValueError("record_key is not case_key and machine_key")
    if record["case_key"] != case.key and not record.get("redacted_from"):  # taking folders out may change a setting
        raise ValueError("case_key is not the key of the case")
    return record


def read_member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes, never more than the table of contents said."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise ValueError("is not as long as the table of contents says")
    return data


def _shown(name: str) -> str:
    """A foreign name, printable and of bounded length."""
    return ascii(name)[1:-1][:120]
