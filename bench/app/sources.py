"""Records from wherever a user names them: a results folder, a bundle, or a single record file."""

from __future__ import annotations

from pathlib import Path

from bench import bundle
from bench.errors import UsageError, did_you_mean
from bench.records import Record, Store, check, read_json


def records_at(place: str) -> list[Record]:
    """Every readable record of a results folder, a bundle (.zip) or one record file (.json).

    Raises:
        UsageError: there is nothing of that kind, or it holds no records.
        ResultsError: a bundle or record that cannot be trusted.
    """
    path = Path(place)
    if path.is_dir():
        problems: list[str] = []
        found = list(Store(path).iterate(problems))
        if not found:
            raise UsageError(f"{path} holds no readable records" + (f": {problems[0]}" if problems else ""))
        return found
    if path.suffix == ".zip" and path.is_file():
        return bundle.unpack_records(path)
    if path.suffix == ".json" and path.is_file():
        return [check(read_json(path), str(path))]
    raise UsageError(f"{place} is no results folder, bundle (.zip) or record (.json)")


def find_row(row: str, results: Path) -> tuple[Record, bool]:
    """The record a user means by `row`, and whether it came from elsewhere than the results folder.

    Args:
        row: a case key or its beginning; a record file; or a bundle, followed by `#key` if it has several records.
        results: the results folder that keys are looked up in.

    Raises:
        UsageError: no record or several fit.
    """
    place, _, key = row.partition("#")
    foreign = Path(place).suffix in (".zip", ".json") or Path(place).is_dir()
    records = records_at(place if foreign else str(results))
    wanted = key if foreign else row
    found = [record for record in records if record["record_key"].startswith(wanted)]
    if len(found) == 1:
        return found[0], foreign
    keys = [record["case_key"] for record in records]
    if not found:
        raise UsageError(f'row "{wanted}" is not there; {did_you_mean(wanted, keys)}')
    if foreign and not key:
        raise UsageError(
            f"{place} holds {len(found)} records: name one as row={place}#<key>; keys: {', '.join(keys[:8])}"
        )
    raise UsageError(f'row "{wanted}" fits {len(found)} records; write more of the key: {", ".join(keys[:8])}')
