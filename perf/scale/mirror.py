"""What mirroring takes per record while an experiment grows."""

from __future__ import annotations

import time
from pathlib import Path

from perf.scale.folder import planned, record_of

#: Portions of a run that are timed.
PORTIONS = 4


def mirrored(uri: str, folder: str, records: int) -> list[float]:
    """Milliseconds per record, portion by portion, while so many go over; each has a run of its own.

    Args:
        uri: of MLflow; empty is an SQLite file in the folder.
        folder: for that file, the artifacts and the ledger.
        records: how many.
    """
    from bench.app.mirror import derived
    from bench.store.records import Store
    from bench.tracking.database import address_of
    from bench.tracking.mirror import Mirror

    place = Path(folder)
    config, made = planned(folder, records)
    store = Store(config.paths.results)
    cases = made.cases[:records]
    for case in cases:
        store.records.mkdir(parents=True, exist_ok=True)
        store.write(record_of(case, "simulated"))
    mirror = Mirror(
        uri or address_of(place / "mlflow.db"), "scale", place / "artifacts", store.root,
        derive=lambda record: derived(store, record),
    )  # fmt: skip
    mirror.start_sweep("vit_tokens", {}, len(cases))
    mirror.log_record(store.read(store.record_path(cases[0].key, "simulated")))  # makes the database and the parent
    portion, found = len(cases) // PORTIONS, []
    for start in range(0, portion * PORTIONS, portion):
        started = time.perf_counter()
        for case in cases[start : start + portion]:
            mirror.log_record(store.read(store.record_path(case.key, "simulated")))
        found.append(1e3 * (time.perf_counter() - started) / portion)
    assert not mirror.problems, mirror.problems
    assert not mirror.pending(store)
    return found
