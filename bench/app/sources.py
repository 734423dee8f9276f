"""Records from wherever a user names them: a results folder, a bundle, or a single record file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.foreign_text import escape_controls, shortened
from bench.plan.case import Case
from bench.short_names import short_name
from bench.store import bundle
from bench.store.journal import Journal
from bench.store.records import CorruptRecord, Record, Store, read_json

#: Rows that a message names.
MOST_ROWS = 5


def records_at(place: str) -> list[Record]:
    """Every readable record of a results folder, a bundle (.zip) or one record file (.json), its parts checked.

    Raises:
        UsageError: there is nothing of that kind, or it holds no records.
        ResultsError: a bundle or record that cannot be trusted.
    """
    path = Path(place)
    if not _exists(place):  # nor can it be, where the name is longer than a file's may be
        raise UsageError(f"{shortened(place)} is not there: name a results folder, a bundle (.zip) or a record (.json)")
    if path.is_dir():
        problems: list[str] = []
        found = list(Store(path).iterate(problems))
        if not found:
            raise UsageError(f"{path} holds no readable records" + (f": {problems[0]}" if problems else ""))
        return found
    if path.suffix == ".zip" and path.is_file():
        return bundle.unpack_records(path)
    if path.suffix == ".json" and path.is_file():
        return [_lone(path)]
    raise UsageError(f"{place} is no results folder, bundle (.zip) or record (.json)")


def _lone(path: Path) -> Record:
    """The record of a file of its own, held to all that one in a bundle is held to."""
    try:
        return bundle.check_record(read_json(path), str(path))
    except CorruptRecord:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptRecord(f"{path}: not a record: {error}") from error


def measured_here(record: Record, results: Path) -> bool:
    """Whether the journal of a results folder says that this record was measured into it.

    A record can claim any machine and any key, and one that was merged from a bundle lies beside our own; but no bundle
    brings a journal. The key must be that of the case, so that a record under a key of ours names no other code.
    """
    try:
        right = Case.from_dict(record["case"]).key == record["case_key"]
    except (ValueError, TypeError):
        return False
    start = f"{record['case_key']}.{record['machine_key']}."
    journal = Journal(Store(results).journal).read()
    return right and (
        any(
            entry.get("case") == record["case_key"]
            and str(entry.get("file", start)).startswith(start)
            and entry.get("content_hash") in (None, record["content_hash"])
            for entry in journal.events("recorded")
        )
        or any(entry.get("content_hash") == record["content_hash"] for entry in journal.events("recording"))
    )


def _place_and_key(row: str) -> tuple[str, str]:
    """A file or folder and what stands after the last `@` or `#`; a place whose own name holds one is a place."""
    if not re.search(r"[@#]", row) or _exists(row):
        return row, ""
    place, key = re.split(r"[@#](?=[^@#]*$)", row, maxsplit=1)
    return place, key


def _exists(place: str) -> bool:
    """Whether there is such a file or folder; a name that no file can have is not there."""
    try:
        return Path(place).exists()
    except (OSError, ValueError):
        return False


def _rows_there(wanted: str, records: Sequence[Record]) -> str:
    """The nearest key, and some of the rows that are there with what they are of."""
    near = difflib.get_close_matches(wanted, [record["case_key"] for record in records], n=1, cutoff=0.55)
    names = [f"{record['case_key'][:8]} {_short(record)}" for record in records[:MOST_ROWS]]
    more = ", ..." if len(records) > MOST_ROWS else ""
    return (f'did you mean "{near[0]}"? ' if near else "") + f"there are {', '.join(names)}{more}"


def _short(record: Record) -> str:
    return escape_controls(shortened(short_name(Case.from_dict(record["case"]).label), 60))


def find_row(row: str, results: Path) -> tuple[Record, bool]:
    """The record a user means by `row`, and whether it came from elsewhere than the results folder.

    Args:
        row: a record key, a case key, or the beginning of either; a record file; or a bundle, followed by `@key` if it
            has several records. (`#key` is the same; but a `#` needs two pairs of quotes on the command line.)
        results: the results folder that keys are looked up in.

    Raises:
        UsageError: no record or several fit.
    """
    place, key = _place_and_key(row)
    foreign = Path(place).suffix in (".zip", ".json") or (_exists(place) and Path(place).is_dir())
    if not foreign and not _exists(str(results)):
        raise UsageError(
            f"there is no results folder {results} here: measure first, name the folder with paths.results=..., or "
            "give row=... a bundle (.zip) or a record (.json)"
        )
    records = records_at(place if foreign else str(results))
    wanted = key if foreign else row
    found = [record for record in records if record["record_key"].startswith(wanted)]
    if len(found) == 1:
        return found[0], foreign
    if not found:
        raise UsageError(f'row "{wanted}" is not there; {_rows_there(wanted, records)}')
    keys = ", ".join(record["record_key"] for record in found[:8])
    if foreign and not key:
        raise UsageError(f"{place} holds {len(found)} records: name one as row={place}@<key>; keys: {keys}")
    raise UsageError(f'row "{wanted}" fits {len(found)} records; write more of the key: {keys}')
