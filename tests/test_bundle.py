"""A bundle holds a run whole and tells nothing about whose machine it was; a hostile one is refused, not unpacked."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import bundle
from bench.bundle import BadBundle, pack, unpack, unpack_records, verify
from bench.errors import ResultsError
from bench.personal import leaks, without_personal
from bench.records import Store, content_hash, seal
from tests.synthetic import record, store, suite_records


@pytest.fixture
def made(tmp_path) -> Store:
    return store(tmp_path / "results")


@pytest.fixture
def packed(tmp_path, made) -> Path:
    site = tmp_path / "site"
    (site / "assets").mkdir(parents=True)
    (site / "index.html").write_text("<p>report</p>")
    (site / "assets" / "plotly.min.js").write_text("x" * 1000)
    return pack(made.root, site, tmp_path / "run.zip")


# --- packing ---------------------------------------------------------------------------------------------------------


def test_bundle_holds_records_samples_report_and_checksums(packed, made):
    report = verify(packed)
    assert report.ok and report.problems == ()
    assert [r["content_hash"] for r in report.records] == [r["content_hash"] for r in made.iterate()]
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        index = archive.read("site/index.html")
    assert names[0] == "manifest.json" and {"site/index.html", "site/assets/plotly.min.js"} < set(names)
    wanted = {run["samples_file"] for r in made.iterate() for run in r["timing"]["invocations"]}
    assert wanted and wanted <= set(names)
    listed = {f["path"]: f["sha256"] for f in manifest["files"]}
    assert listed["site/index.html"] == hashlib.sha256(index).hexdigest() and set(listed) == set(names[1:])


def test_unpacked_bundle_is_the_results_folder_again(packed, made, tmp_path):
    assert unpack_records(packed) == list(made.iterate())
    copy = unpack(packed, tmp_path / "copy")
    assert list(copy.iterate()) == list(made.iterate())
    one = next(made.samples.rglob("*.json.gz"))
    other = copy.root / one.relative_to(made.root)
    assert gzip.decompress(one.read_bytes()) == gzip.decompress(other.read_bytes())
    assert not (copy.root / "site").exists() and not (copy.root / "manifest.json").exists()


def test_unpacking_never_changes_what_is_there(packed, made, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in made.root.rglob("*.json")}
    unpack(packed, made.root)
    assert before == {path: path.stat().st_mtime_ns for path in made.root.rglob("*.json")}


def personal_record() -> dict:
    error = {"phase": "load", "type": "OSError", "message": "no file /home/jdoe/nets/w.pt",
             "log_tail": 'File "/home/jdoe/work/model.py", line 3\nhttps://x.org/a/b rate a/b'}  # fmt: skip
    environment = {"cpu": {"model": "C"}, "private": {"user": "jdoe"}, "gpus": [{"name": "G", "uuid": "GPU-1"}]}
    return record(status="crashed", error=error, environment=environment)


def test_nothing_personal_goes_out_and_the_record_says_that_it_was_cut(tmp_path):
    made = store(tmp_path / "results", [personal_record()])
    out = pack(made.root, None, tmp_path / "b.zip")
    (clean,) = unpack_records(out)
    (original,) = made.iterate()
    text = json.dumps(clean)
    assert "jdoe" not in text and "GPU-1" not in text and "private" not in clean["environment"]
    assert clean["error"]["message"] == "no file .../w.pt"
    assert clean["error"]["log_tail"] == 'File ".../model.py", line 3\nhttps://x.org/a/b rate a/b'
    assert clean["redacted_from"] == original["content_hash"] and clean["content_hash"] == content_hash(clean)


def test_private_bundle_keeps_everything_when_asked(tmp_path):
    made = store(tmp_path / "results", [personal_record()])
    assert unpack_records(pack(made.root, None, tmp_path / "b.zip", private=True)) == list(made.iterate())


def test_records_without_personal_parts_keep_their_hash(packed, made):
    assert not any("redacted_from" in item for item in unpack_records(packed))


def test_report_that_names_a_home_folder_is_not_packed(tmp_path, made):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<p>/home/jdoe/results</p>")
    with pytest.raises(ResultsError, match=r"names '/home/jdoe'.*show_paths=false"):
        pack(made.root, tmp_path / "site", tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists() and not list(tmp_path.glob(".b.zip*"))
    assert verify(pack(made.root, tmp_path / "site", tmp_path / "b.zip", private=True)).ok


def test_links_are_not_followed_out_of_the_folders(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("key")
    item = record()
    item["timing"]["invocations"][0]["samples_file"] = "../secret"
    item["timing"]["invocations"][1]["samples_file"] = "samples/link.json.gz"
    made = store(tmp_path / "results", [item], with_samples=False)
    made.samples.mkdir()
    (made.samples / "link.json.gz").symlink_to(secret)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("x")
    (site / "leak.txt").symlink_to(secret)
    (site / "folder").symlink_to(tmp_path)
    with zipfile.ZipFile(pack(made.root, site, tmp_path / "b.zip")) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"manifest.json", "records", "site"}
        assert [name for name in archive.namelist() if name.startswith("site")] == ["site/index.html"]


def test_superseded_records_stay_at_home(tmp_path):
    made = store(tmp_path / "results", [record(status="crashed")])
    (first,) = made.iterate()
    made.write({**record(), "supersedes": first["content_hash"]})
    (only,) = unpack_records(pack(made.root, None, tmp_path / "b.zip"))
    assert only["status"] == "ok"


def test_corrupt_records_are_left_out_and_named(tmp_path, made):
    next(made.records.glob("*.json")).write_text("{")
    problems: list[str] = []
    assert len(unpack_records(pack(made.root, None, tmp_path / "b.zip", problems=problems))) == 8
    assert len(problems) == 1


def test_nothing_to_pack_is_said(tmp_path):
    with pytest.raises(ResultsError, match="no records"):
        pack(tmp_path / "empty", None, tmp_path / "b.zip")


# --- personal text ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "clean"), [
    ("/data/x/lib.so", ".../lib.so"), ("C:\\Users\\jd\\a.py", ".../a.py"), ("~/nets/a.pt", ".../a.pt"),
    ("at /a/b/c.py:3, /d/e.py", "at .../c.py:3, .../e.py"), ("https://h.org/a/b/c", "https://h.org/a/b/c"),
    ("1/2 and MAC/s", "1/2 and MAC/s"), ("on host-7.", "on (hidden)."), ("host-77", "host-77"), ("home /home/jd", "home ~"),
    ("blocks.0/attn", "blocks.0/attn"), ("/sys/class/powercap holds none", "/sys/class/powercap holds none"),
])  # fmt: skip
def test_text_loses_folders_and_names_only(text, clean):
    assert without_personal(text, names=["host-7"]) == clean


def test_leaks_are_found_by_folder(tmp_path):
    assert leaks(f"see {tmp_path}", [tmp_path]) == str(tmp_path) and leaks("nothing here", [tmp_path]) is None


# --- hostile bundles -------------------------------------------------------------------------------------------------


def rewrite(source: Path, target: Path, change) -> Path:
    """A copy with its {name: bytes} changed and the manifest made to match: a forger's work, not an accident."""
    with zipfile.ZipFile(source) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    manifest = json.loads(contents.pop("manifest.json"))
    manifest["files"] = [
        {"path": n, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in sorted(contents.items())
    ]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, data in contents.items():
            archive.writestr(name, data)
    return target


@pytest.mark.parametrize("name", [
    "../evil", "/etc/evil", "site/../../evil", "records/..", "site\\..\\evil", "C:/evil", "evil.py", "site/a\nb",
    "site//a", "./site/a", "site/", "setup/x.py",
])  # fmt: skip
def test_names_that_lead_out_or_do_not_belong_are_refused(packed, tmp_path, name):
    bad = rewrite(packed, tmp_path / "bad.zip", lambda c: c.update({name: b"x"}))
    report = verify(bad)
    assert not report.ok and report.records == ()
    with pytest.raises(BadBundle):
        unpack(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


def test_links_and_devices_are_refused(packed, tmp_path):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        bad = tmp_path / "bad.zip"
        bad.write_bytes(packed.read_bytes())
        with zipfile.ZipFile(bad, "a") as archive:
            info = zipfile.ZipInfo("site/link")
            info.external_attr = (kind | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
        assert any("no plain file" in problem for problem in verify(bad).problems)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(packed, tmp_path):
    for name in ("site/index.html", "site/INDEX.html"):
        bad = tmp_path / "bad.zip"
        bad.write_bytes(packed.read_bytes())
        with zipfile.ZipFile(bad, "a") as archive:
            archive.writestr(name, "other")
        assert any("appears twice" in problem for problem in verify(bad).problems)


def test_sizes_are_refused_before_anything_is_unpacked(packed, tmp_path, monkeypatch):
    bad = rewrite(packed, tmp_path / "bad.zip", lambda c: c.update({"site/bomb": b"\0" * 5_000_000}))
    assert bad.stat().st_size < 1_000_000
    monkeypatch.setattr(bundle, "_read", lambda *_: pytest.fail("was unpacked"))
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 4_000_000)
    assert "5000000 bytes" in verify(bad).problems[0]
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 10_000_000)
    monkeypatch.setattr(bundle, "MAX_TOTAL_BYTES", 4_000_000)
    assert "unpacks to" in verify(bad).problems[0]
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    assert "at most 3" in verify(bad).problems[0]


def test_samples_that_explode_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 1_000_000)
    bomb = gzip.compress(b" " * 5_000_000)
    bad = rewrite(packed, tmp_path / "bad.zip", lambda c: c.update({"samples/s/00.json.gz": bomb}))
    assert any("unpacks to more than" in problem for problem in verify(bad).problems)


def first_record(contents: dict[str, bytes]) -> str:
    return next(name for name in contents if name.startswith("records/"))


def edit(**changes):
    """Change a record and seal it anew, as a forger would."""

    def change(contents: dict[str, bytes]) -> None:
        name = first_record(contents)
        contents[name] = json.dumps(seal({**json.loads(contents[name]), **changes})).encode()

    return change


def spoil(text: bytes):
    def change(contents: dict[str, bytes]) -> None:
        contents[first_record(contents)] = text

    return change


def edit_without_sealing(contents: dict[str, bytes]) -> None:
    name = first_record(contents)
    contents[name] = json.dumps({**json.loads(contents[name]), "status": "oom"}).encode()


@pytest.mark.parametrize("change", [
    edit_without_sealing, edit(status="wonderful"), edit(case={"suite": "x"}), edit(case={"code": "import os"}),
    edit(readings=[{"metric": "macs", "value": 1, "unit": "B", "provenance": "counted"}]), edit(readings=None),
    edit(case_key="../../x"), edit(machine_key=5), spoil(b"{"), spoil(b"[" * 100_000), spoil(b"\xff"), spoil(b"null"),
    spoil(b'{"case": {}, "x": NaN}'), spoil(b'{"case": {}, "x": ' + b"9" * 10_000 + b"}"),
])  # fmt: skip
def test_records_that_are_forged_or_broken_are_refused(packed, tmp_path, change):
    bad = rewrite(packed, tmp_path / "bad.zip", change)
    report = verify(bad)
    assert not report.ok and len(report.records) == 8
    with pytest.raises(BadBundle, match="get the bundle anew"):
        unpack_records(bad)


def test_record_of_a_newer_schema_says_to_update(packed, tmp_path):
    def newer(contents: dict[str, bytes]) -> None:
        name = first_record(contents)
        item = {**json.loads(contents[name]), "schema": 99}
        contents[name] = json.dumps({**item, "content_hash": content_hash(item)}).encode()

    assert any("update waterline-bench" in p for p in verify(rewrite(packed, tmp_path / "b.zip", newer)).problems)


def test_checksums_and_lists_must_match(packed, tmp_path):
    with zipfile.ZipFile(packed) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["site/index.html"] = b"<p>rep0rt</p>"
    del contents["site/assets/plotly.min.js"]
    contents["site/extra.html"] = b"x"
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    problems = " | ".join(verify(tmp_path / "bad.zip").problems)
    assert "index.html: does not match its checksum" in problems
    assert "plotly.min.js: is listed but missing" in problems and "extra.html: is there but not listed" in problems


@pytest.mark.parametrize("text", [b"", b"[]", b'{"kind": "other"}', b'{"kind": "waterline bundle", "schema": 1}',
                                  b'{"kind": "waterline bundle", "schema": 1, "files": [1]}', b"\xff", b"[" * 99_999])  # fmt: skip
def test_manifests_that_are_none_are_refused(packed, tmp_path, text):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("manifest.json", text)
    assert not verify(tmp_path / "bad.zip").ok


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 nothing")
    assert not verify(tmp_path / "x.zip").ok and not verify(tmp_path / "missing.zip").ok and not verify(tmp_path).ok


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_passes_unnoticed_or_raises(packed, tmp_path, data):
    good = packed.read_bytes()
    where = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.booleans())
    bad = (
        good[:where]
        if cut
        else good[:where] + bytes([good[where] ^ data.draw(st.integers(1, 255))]) + good[where + 1 :]
    )
    (tmp_path / "bad.zip").write_bytes(bad)
    report = verify(tmp_path / "bad.zip")
    if report.ok:  # only bytes that carry nothing, such as time stamps, may change unseen
        assert list(report.records) == unpack_records(packed)


def test_equal_runs_make_equal_archives(tmp_path, made, monkeypatch):
    monkeypatch.setattr(bundle, "now", lambda: "2026-01-01T00:00:00+00:00")
    one, two = (pack(made.root, None, tmp_path / f"{n}.zip").read_bytes() for n in "ab")
    assert one == two and os.stat(tmp_path / "a.zip").st_mode & 0o777 == 0o644


def test_suite_records_are_what_the_fixture_packs(packed):
    assert len(unpack_records(packed)) == len(suite_records())
