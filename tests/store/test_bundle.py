"""A bundle holds a run whole and tells nothing about whose machine it was; a hostile one is refused, not unpacked."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.canonical import content_hash
from bench.documentation import FOLDER, PAGES
from bench.errors import ResultsError
from bench.host.personal import leaks, without_personal
from bench.store import bundle, foreign
from bench.store.bundle import BadBundle, pack, unpack, unpack_records, verify
from bench.store.records import Store, read_json, seal, without_superseded, write_json
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
    assert list(report.records) == [r["content_hash"] for r in made.iterate()]
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


def test_documentation_beside_a_report_is_left_out_and_its_links_lead_to_where_it_is_made(made, tmp_path):
    site = tmp_path / "site"
    pages = {path: site / path for path in PAGES.values()}
    for path in (site / "index.html", *pages.values(), site / FOLDER / "search.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("<p>long</p>")
    with zipfile.ZipFile(pack(made.root, site, tmp_path / "b.zip")) as archive:
        names = {name for name in archive.namelist() if name.startswith("site/")}
        assert names == {"site/index.html"} | {f"site/{path}" for path in pages}
        assert all(b"nox -s docs_site" in archive.read(f"site/{path}") for path in pages)
    assert verify(tmp_path / "b.zip").ok
    pages[PAGES["glossary"]].unlink()  # no page of the report names it then
    with zipfile.ZipFile(pack(made.root, site, tmp_path / "b.zip")) as archive:
        assert f"site/{PAGES['glossary']}" not in archive.namelist()


def personal_record() -> dict:
    error = {
        "phase": "load",
        "type": "OSError",
        "message": "no file /home/jdoe/nets/w.pt",
        "log_tail": 'File "/home/jdoe/work/model.py", line 3\nhttps://x.org/a/b rate a/b',
    }
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
    item["timing"]["invocations"][1]["samples_file"] = "samples/s/link.json.gz"
    made = store(tmp_path / "results", [item], with_samples=False)
    (made.samples / "s").mkdir(parents=True)
    (made.samples / "s" / "link.json.gz").symlink_to(secret)
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("x")
    (site / "leak.txt").symlink_to(secret)
    (site / "folder").symlink_to(tmp_path)
    with zipfile.ZipFile(pack(made.root, site, tmp_path / "b.zip")) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"manifest.json", "records", "site"}
        assert [name for name in archive.namelist() if name.startswith("site")] == ["site/index.html"]


def test_a_samples_file_elsewhere_is_no_record(tmp_path):
    item = record()
    item["timing"]["invocations"][0]["samples_file"] = "../secret"
    made = store(tmp_path / "results", [item], with_samples=False)
    with pytest.raises(ResultsError, match="samples_file"):
        pack(made.root, None, tmp_path / "b.zip")


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
    ("1/2 and MAC/s", "1/2 and MAC/s"), ("on host-7.", "on (hidden)."), ("host-77", "host-77"), ("home /home/jd",
    "home ~"), ("blocks.0/attn", "blocks.0/attn"), ("/sys/class/powercap holds none", "/sys/class/powercap holds none"),
    ("cc -I/home/jd/inc/x -L/srv/jd/lib", "cc -I.../x -L.../lib"), ("-I/home/jd", "-I~"), ("file:///home/jd/a/b.py",
    "file:.../b.py"), ("/a:/home/jd/lib:/data/jd/so", "/a:~/lib:.../so"), ("sqlite:////home/jd/x/m.db",
    "sqlite:.../m.db"), ("http://h:5000/home/a/b, /home/jd/x/y", "http://h:5000/home/a/b, .../y"), ("C:/Users/jd/a.py",
    ".../a.py"), ("/data/host-7_x and host-7-b.log", ".../(hidden)_x and (hidden)-b.log"), ("myhost-7", "myhost-7"),
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
    monkeypatch.setattr(bundle, "read_member", lambda *_: pytest.fail("was unpacked"))
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 4_000_000)
    assert "5000000 bytes" in verify(bad).problems[0]
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 10_000_000)
    monkeypatch.setattr(bundle, "MAX_TOTAL_BYTES", 4_000_000)
    assert "unpacks to" in verify(bad).problems[0]
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    assert "at most 3" in verify(bad).problems[0]


def test_samples_that_explode_are_refused(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_JSON_BYTES", 1_000_000)
    bomb = gzip.compress(b" " * 5_000_000)
    bad = rewrite(packed, tmp_path / "bad.zip", lambda c: c.update({"samples/s/00.json.gz": bomb}))
    assert any("unpacks to more than" in problem for problem in verify(bad).problems)


def first_record(contents: dict[str, bytes]) -> str:
    return next(name for name in contents if name.startswith("records/"))


def edit(**changes):
    """Change a record and reseal it, as a forger would."""

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
    with pytest.raises(BadBundle, match="get the bundle again"):
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


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"kind": "other"}',
        b'{"kind": "waterline bundle", "schema": 1}',
        b'{"kind": "waterline bundle", "schema": 1, "files": [1]}',
        b"\xff",
        b"[" * 99_999,
    ],
)
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
        assert list(report.records) == [made["content_hash"] for made in unpack_records(packed)]


def test_equal_runs_make_equal_archives(tmp_path, made, monkeypatch):
    monkeypatch.setattr(bundle, "utc_millisecond", lambda: "2026-01-01T00:00:00+00:00")
    one, two = (pack(made.root, None, tmp_path / f"{n}.zip").read_bytes() for n in "ab")
    assert one == two and os.stat(tmp_path / "a.zip").st_mode & 0o777 == 0o644


def test_suite_records_are_what_the_fixture_packs(packed):
    assert len(unpack_records(packed)) == len(suite_records())


# --- whose record it is ----------------------------------------------------------------------------------------------


def test_a_record_of_another_case_hides_none_of_ours_by_naming_its_hash():
    ours = seal(record())
    theirs = seal({**record(method="tome", setting="r=8"), "supersedes": ours["content_hash"]})
    elsewhere = seal({**record(machine_key="other"), "supersedes": ours["content_hash"]})
    assert without_superseded([ours, theirs, elsewhere]) == [ours, theirs, elsewhere]
    assert without_superseded([ours, seal({**record(seed=9), "supersedes": ours["content_hash"]})]) != [ours]


def test_what_supersedes_a_record_supersedes_its_published_copy_too():
    ours = seal(record(seed=1))
    published = seal({**record(seed=1), "picture": None, "redacted_from": ours["content_hash"]})
    newer = seal({**record(seed=2), "supersedes": ours["content_hash"]})
    assert without_superseded([published, newer]) == [newer]


def under(name):
    """Put the first record of a bundle under another name."""

    def change(contents: dict[str, bytes]) -> None:
        first = first_record(contents)
        parts = first.removesuffix(".json").removeprefix("records/").split(".")
        contents[f"records/{name.format(case=parts[0], machine=parts[1])}.json"] = contents.pop(first)

    return change


@pytest.mark.parametrize(
    "name",
    [
        "0123456789abcdef.{machine}",
        "{case}.0123456789abcdef",
        "{case}.{machine}.0",
        "{case}.{machine}.01",
        "{case}.{machine}.2.3",
        "{machine}.{case}",
    ],
)
def test_a_record_under_another_name_is_refused(packed, tmp_path, name):
    report = verify(rewrite(packed, tmp_path / "bad.zip", under(name)))
    assert any("not named after the record" in problem for problem in report.problems) and len(report.records) == 8


def test_a_record_under_the_number_of_an_attempt_is_taken(packed, tmp_path):
    assert verify(rewrite(packed, tmp_path / "good.zip", under("{case}.{machine}.12"))).ok


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"case_key": "0" * 16}, "record_key"),
        ({"case_key": "0" * 16, "record_key": "{0}.{machine}"}, "key of the case"),
        ({"record_key": "x.y"}, "record_key"),
        ({"machine_key": "m.2", "record_key": "{case}.m.2"}, "machine_key is no key"),
    ],
)
def test_a_record_whose_keys_are_not_its_own_is_refused(packed, tmp_path, keys, why):
    def change(contents: dict[str, bytes]) -> None:
        name = first_record(contents)
        item = json.loads(contents.pop(name))
        told = {"case": item["case_key"], "machine": item["machine_key"]}
        forged = {**item, **{key: text.format("0" * 16, **told) for key, text in keys.items()}}
        contents[f"records/{forged['record_key']}.json"] = json.dumps(seal(forged)).encode()

    report = verify(rewrite(packed, tmp_path / "bad.zip", change))
    assert not report.ok and any(why in problem for problem in report.problems), report.problems


def test_unpacking_is_a_union_and_twice_is_once(tmp_path):
    crashed = record(status="crashed", error={"phase": "load", "type": "E", "message": "m", "log_tail": ""})
    mine, theirs = store(tmp_path / "mine", [crashed]), store(tmp_path / "theirs", [record()])
    packed = pack(theirs.root, None, tmp_path / "b.zip")
    before = {path: path.read_bytes() for path in mine.records.iterdir()}
    for _ in range(2):
        unpack(packed, mine.root)
        assert [item["status"] for item in mine.iterate()] == ["ok", "crashed"]
    assert all(path.read_bytes() == data for path, data in before.items())
    names = sorted(path.name for path in mine.records.iterdir())
    key = f"{crashed['case_key']}.{crashed['machine_key']}"
    assert names == [f"{key}.2.json", f"{key}.json"]
    both = unpack(pack(mine.root, None, tmp_path / "both.zip"), tmp_path / "copy")
    assert sorted(item["status"] for item in both.iterate()) == ["crashed", "ok"]


def test_our_own_records_come_back_from_their_published_copy_as_nothing_new(tmp_path):
    made = store(tmp_path / "results", [personal_record()])
    unpack(pack(made.root, None, tmp_path / "b.zip"), made.root)
    (only,) = made.iterate()
    assert "redacted_from" not in only


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("records/{key}.json", b'{"case": {}, "x": "' + b"x" * 17 * 2**20 + b'"}'),
        ("machines/m.cpu.1.json", b"[" + b"1," * 9 * 2**20),
        ("samples/s/00.json.gz", gzip.compress(b"[" + b"[]," * 6 * 2**20)),
    ],
    ids=["record", "calibration", "samples"],
)
def test_json_without_end_is_refused_before_it_is_parsed(packed, tmp_path, monkeypatch, name, data):
    def change(contents: dict[str, bytes]) -> None:
        key = first_record(contents).removesuffix(".json").removeprefix("records/")
        contents[name.format(key=key)] = data

    bad = rewrite(packed, tmp_path / "bad.zip", change)
    real = json.loads
    monkeypatch.setattr(
        bundle.json, "loads", lambda text, **more: real(text, **more) if len(text) < 2**20 else pytest.fail("parsed")
    )
    report = verify(bad)
    assert any("at most" in problem or "unpacks to more" in problem for problem in report.problems)


@pytest.mark.parametrize(
    "text", [b"[]", b"3", b"null", b'{"peaks": {}}', b'{"peaks": [{"dtype": "fp32", "value": "x"}]}']
)
def test_a_calibration_of_another_shape_is_refused(packed, tmp_path, text):
    bad = rewrite(packed, tmp_path / "bad.zip", lambda contents: contents.update({"machines/m.cpu.1.json": text}))
    assert [problem for problem in verify(bad).problems if "is no calibration" in problem]


def test_what_verifying_would_refuse_is_not_packed(tmp_path, made, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    with pytest.raises(ResultsError, match=r"would be refused: holds .* files.*report=off"):
        pack(made.root, None, tmp_path / "b.zip")
    assert not list(tmp_path.glob("*.zip"))


def test_a_damaged_or_endless_file_is_left_out_and_named(tmp_path, made, monkeypatch):
    samples = sorted(made.samples.rglob("*.json.gz"))
    samples[0].write_bytes(b"no archive")
    made.machines.mkdir()
    (made.machines / "m.cpu.1.json").write_text("[]")
    problems: list[str] = []
    packed = pack(made.root, None, tmp_path / "b.zip", problems=problems)
    report = verify(packed)
    assert report.ok and len(report.records) == 9 and len(problems) == 2
    assert any(samples[0].name in line for line in problems)
    assert any("is no calibration" in line for line in problems)
    with pytest.raises(ResultsError):
        pack(made.root, None, tmp_path / "c.zip")
    monkeypatch.setattr(bundle, "MAX_JSON_BYTES", 1000)
    with pytest.raises(ResultsError, match="bytes of JSON"):
        pack(made.root, None, tmp_path / "c.zip")


def test_a_calibration_is_packed_without_personal_parts(tmp_path, made):
    write_json(made.machines / "m.cpu.1.json", {"peaks": [], "bandwidth": None, "notes": ["log in /home/jd/x/y"]})
    there = unpack(pack(made.root, None, tmp_path / "b.zip"), tmp_path / "copy")
    assert read_json(there.machines / "m.cpu.1.json")["notes"] == ["log in .../y"]


def peak_of_packing(folder, files):
    """Bytes that packing takes at its peak, of as many records and as many pages of half a megabyte each."""
    results, pages = Store(folder / "results"), folder / "site"
    pages.mkdir(parents=True)
    for number in range(files):
        made = seal({**record(method="tome", setting=f"r={number}"), "padding": ["x" * 100] * 5000})
        write_json(results.record_path(made["case_key"], made["machine_key"]), made)
        (pages / f"{number}.txt").write_text("y" * 500_000)
    tracemalloc.start()
    pack(results.root, pages, folder / "b.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert verify(folder / "b.zip").ok
    return peak


def test_packing_takes_the_memory_of_one_file_however_many_there_are(tmp_path):
    few, many = peak_of_packing(tmp_path / "few", 3), peak_of_packing(tmp_path / "many", 8)
    assert many < few + 500_000  # all of them would be five megabytes more
    assert few < foreign.MEMORY_FACTOR * 525_000 + foreign.MEMORY_BESIDE


def test_a_page_larger_than_a_bundle_holds_is_refused_before_it_is_read(tmp_path, monkeypatch):
    results = Store(tmp_path / "results")
    made = seal(record())
    write_json(results.record_path(made["case_key"], made["machine_key"]), made)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "big.html").write_text("y" * 5000)
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 4000)
    with pytest.raises(ResultsError, match=r"big.html: holds 5000 bytes"):
        bundle.pack(results.root, tmp_path / "site", tmp_path / "b.zip")
    assert [path.name for path in tmp_path.glob("*.zip")] == [] and not list(tmp_path.glob(".*.tmp"))
