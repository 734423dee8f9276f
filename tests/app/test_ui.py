"""`job=ui` gives its address once the server answers, and leaves no process behind however it ends."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from bench.app.jobs import ui
from bench.errors import BenchError

ROOT = Path(__file__).resolve().parents[2]
#: A server that answers late and has a process of its own, as MLflow's has.
SERVER = """
import http.server, subprocess, sys, time
time.sleep(0.5)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"OK")
    def log_message(self, *_): print("access log")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
DRIVER = """
import sys
from bench.app import cli
from bench.app.jobs import ui
import bench.tracking.ui as tracking
port = sys.argv.pop()
server = sys.argv.pop()
tracking.ui_command = lambda *_, **__: ([sys.executable, "-c", server, port], {}, f"http://127.0.0.1:{port}/#/x")
sys.argv = ["bench", "job=ui"]
cli.main()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_address_answers_when_it_is_printed_and_a_kill_ends_everything(tmp_path, request, number):
    port = free_port()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, SERVER, str(port)],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job ignores it
    )
    request.addfinalizer(driver.kill)
    line = driver.stdout.readline()
    assert f"http://127.0.0.1:{port}/#/x" in line
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"OK"
    children = psutil.Process(driver.pid).children(recursive=True)
    assert len(children) >= 2
    driver.send_signal(number)
    assert driver.wait(30) == 0
    gone, alive = psutil.wait_procs(children, timeout=5)
    assert not alive and len(gone) == len(children)


def test_a_server_that_ends_before_it_answers_is_told_with_its_last_words(tmp_path):
    log = tmp_path / "log"
    log.write_text("line\nthe database is of another version\n")
    server = subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"])
    while server.poll() is None:
        time.sleep(0.05)
    with pytest.raises(BenchError, match=r"ended before it answered \(4\): line the database is of another version"):
        ui._wait_for_answer(server, f"http://127.0.0.1:{free_port()}/", log)
