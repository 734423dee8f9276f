"""Every method of the suite runs where its weights are: nothing in a forward is made on the host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch makes up no devices",
)
def test_no_method_mixes_the_host_with_the_device():
    done = subprocess.run(
        [sys.executable, "-m", "tests.suites.vit_tokens.elsewhere"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    ran = {key: where for key, where in found.items() if "learns from data" not in where}
    assert {key: where for key, where in ran.items() if where != "elsewhere:0"} == {}
    methods = {key.split()[1] for key in ran}
    assert {"none", "tome", "evit", "diffrate", "dynamicvit", "topvim"} <= methods
