"""A digest that tells hosts apart and nothing else."""

import pytest

from bench.host_identity import host_digest

NUMBER = "0123456789abcdef0123456789abcdef"


def host(folder, number=NUMBER, file="etc/machine-id"):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(number + "\n")
    return folder


def test_equal_hosts_have_one_digest_and_others_another(tmp_path):
    first = host_digest(host(tmp_path / "a"))
    assert (
        first == host_digest(host(tmp_path / "b")) == host_digest(host(tmp_path / "c", file="var/lib/dbus/machine-id"))
    )
    assert first != host_digest(host(tmp_path / "d", NUMBER[::-1]))


def test_the_digest_does_not_hold_the_number(tmp_path):
    import hashlib

    found = host_digest(host(tmp_path))
    assert len(found) == 32 and found != NUMBER
    assert found not in hashlib.sha256(NUMBER.encode()).hexdigest()  # nor is it what anybody else's hash would be


@pytest.mark.parametrize("number", ["", "uninitialized", "0123", NUMBER + "0", NUMBER.upper()])
def test_a_host_without_a_number_of_its_own_has_none(number, tmp_path):
    assert host_digest(host(tmp_path, number)) is None


def test_a_host_without_the_file_has_none(tmp_path):
    assert host_digest(tmp_path) is None
