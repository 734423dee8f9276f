"""The embedded suite on a real GPU: vision transformers and their methods, counted, timed and measured with energy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.store.records import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.gpu
@pytest.mark.timeout(1800)
def test_the_embedded_suite_runs_on_a_gpu_without_a_line_changed(tmp_path):
    command = [
        sys.executable,
        "-m",
        "bench",
        "suite=vit_tokens",
        "device=cuda",
        "tracking=off",
        "task=none",
        "suite.models=[deit_tiny]",
        'suite.methods=["tome(r=13)"]',
        "suite.batches=[8]",
        "protocol.energy.windows=2",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode in (0, 3), done.stderr + done.stdout
    records = list(Store(tmp_path / "results").iterate())
    assert records and all(record["status"] in ("ok", "contaminated") for record in records), done.stdout
    for record in records:
        joules = next(row for row in record["readings"] if row["metric"] == "energy_j")
        assert joules["value"] is None or joules["value"] > 0
        assert joules["value"] is not None or joules["method_note"]
        assert record["counts"]["uncounted"] == []
