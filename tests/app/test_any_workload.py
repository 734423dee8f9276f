"""A workload of one's own with parts, compared with a named model, through every job.

Planned, resumed, reproduced, compared, packed, shown, mirrored.
"""

import copy
import json
import re
from pathlib import Path

import pytest

from bench import workloads
from bench.analysis.compare import compare
from bench.analysis.judge import judge
from bench.app import forecast
from bench.app.jobs import bundle as bundle_job
from bench.app.jobs import plan as plan_job
from bench.app.jobs import reproduce
from bench.config import catalogue
from bench.config.protocol import Protocol
from bench.errors import UsageError
from bench.plan import estimate, plan
from bench.plan.case import Case
from bench.plan.recipe import recipe_for
from bench.store.bundle import unpack_records, verify
from bench.store.records import Store, seal, write_json
from bench.sweep.attempts import Interrupted
from bench.sweep.events import GroupFinished, Recorded
from bench.tracking.mlflow_view import sections_of
from bench.tracking.tracked_run import describe
from bench.worker.client import Done
from reports.rows import as_row_of
from reports.site import build, load
from tests.sweeping import QUICK, configuration, sweep
from tests.workers import Sharing

NAPS = "tests.workloads.naps"
BLOCK = {
    "models": [f"{NAPS}:naps", f"{NAPS}:longer"],
    "workload": NAPS,
    "shapes": {"batch": [2], "times": [3]},
    "against": f"{NAPS}:naps",
}


def naps(folder, **changes):
    return configuration(folder, [], suite={"name": "naps", "grids": {"default": [BLOCK]}}, protocol=QUICK, **changes)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The records of a sweep that was stopped after its first record and run again, by model, with what it told."""
    folder, told = tmp_path_factory.mktemp("naps"), []

    def stop(event):
        told.append(event)
        if isinstance(event, Recorded):
            raise KeyboardInterrupt

    config = naps(folder)
    with pytest.raises(Interrupted):
        sweep(config, stop)
    again = []
    done = sweep(config, again.append)
    assert not done.failed and not done.problems
    return config, {record["case"]["model"].partition(":")[2]: record for record in done.records}, told, again


def test_a_stopped_sweep_goes_on_and_measures_nothing_twice(swept):
    _, rows, told, again = swept
    before = [event.record["case_key"] for event in told if isinstance(event, Recorded)]
    after = [event.record["case_key"] for event in again if isinstance(event, Recorded)]
    assert set(rows) == {"naps", "longer"}
    assert sorted(before + after) == sorted(row["case_key"] for row in rows.values())
    (finished,) = [event for event in again if isinstance(event, GroupFinished)]
    assert (finished.done, finished.left, finished.failed, finished.cases) == (1, 0, 0, len(after))


def test_a_plan_says_what_could_not_be_counted_and_estimates_it_all_the_same(tmp_path, capsys):
    config = naps(tmp_path)
    made = plan.make(config, catalogue.load())
    found = forecast.forecast(config, made)
    assert set(found.seconds) == {group.key for group in made.groups} and all(s > 0 for s in found.seconds.values())
    assert len(found.uncounted) == 2 and all("meta" in why for why in found.uncounted.values())  # its runs read a value
    assert plan_job.run(config) == 0
    assert "not counted beforehand" in capsys.readouterr().out


def test_the_estimate_of_a_group_adds_up_the_parts_of_every_member():
    base = Case(suite="s", model="m", workload="generate", shape="context=8, new_tokens=4", against="itself")
    other = Case(suite="s", model="n", workload="generate", shape="context=8, new_tokens=4").compared_with(base)
    group, protocol = plan.Group((base, other)), Protocol()
    one = {base.key: [100.0], other.key: [100.0]}
    three = {base.key: [100.0], other.key: [100.0, 60.0, 40.0]}
    rounds = min(protocol.latency.samples, protocol.latency.case_seconds / 0.1)
    warm = max(protocol.latency.warmup_s, 0.3)
    layers = protocol.counting.layer_repeats * 1.5
    further = 2 * warm + (rounds + layers) * 0.1  # two more parts, together as long as the whole
    assert estimate.group_seconds(group, three, protocol) - estimate.group_seconds(
        group, one, protocol
    ) == pytest.approx(protocol.latency.invocations * further)


def test_the_estimate_of_a_pipeline_knows_how_long_its_loads_are():
    def seconds(shape):
        case = Case(suite="s", model="m", workload="pipeline", shape=shape)
        return estimate.group_seconds(plan.Group((case,)), {case.key: [10.0]}, Protocol())

    calm = "limit_ms=None, load=None, rate=None, seconds=4.0, servers=1, together=1, window_ms=0.0"
    loaded = calm.replace("load=None", "load=0.5")
    saturated = 5 * 4 * 0.05 * 4  # runs of the chain, its network, pre-processing and transfer
    assert seconds(loaded) - seconds(calm) == pytest.approx(5 * 4)
    assert seconds(calm.replace("seconds=4.0", "seconds=8.0")) - seconds(calm) == pytest.approx(saturated)


def test_every_part_is_judged_against_the_original_by_itself(swept):
    _, rows, _, _ = swept
    slow = copy.deepcopy(rows["longer"])
    for item in slow["readings"]:
        if item["metric"] == "macs" and item["part"] == "long":
            item["value"] += 1
    verdicts = {(item.metric, item.part): item.kind for item in judge(rows["longer"], slow, own=True)}
    assert verdicts["macs", ""] == verdicts["macs", "short"] == "AGREES" and verdicts["macs", "long"] == "DISAGREES"
    assert ("speedup", "long") in verdicts and ("params", "long") not in verdicts


def test_a_comparison_names_the_part_in_which_a_side_is_slower(swept):
    _, rows, _, _ = swept
    slow = copy.deepcopy(rows["longer"])
    slow["timing"]["session"] = "another"
    for line in slow["timing"]["invocations"]:
        line["parts"]["long"]["median_ms"] *= 2.0
    found = compare([rows["longer"]], [slow])
    by_part = {row.part: row for row in found.rows if row.metric == "latency_ms"}
    assert set(by_part) == {"", "short", "long"}
    assert (
        by_part["long"].ratio.value == pytest.approx(0.5, rel=0.01) and by_part["long"].quantity == "latency_ms of long"
    )
    assert by_part[""].ratio.value == by_part["short"].ratio.value == pytest.approx(1.0, rel=1e-6)
    assert len({(row.metric, row.part) for row in found.rows}) == len(found.rows)


def test_a_row_is_reproduced_with_its_named_side_shape_and_parts(swept, capsys):
    config, rows, _, _ = swept
    row = rows["longer"]
    code = reproduce.run(config.model_copy(update={"job": "reproduce", "row": row["case_key"]}))
    told = capsys.readouterr().out
    assert code in (0, 1, 4)  # times may be noisy, counts may not
    assert re.search(r"^macs of long .*AGREES", told, re.M) and re.search(r"^speedup of short ", told, re.M)
    kept = Store(f"{config.paths.results}/reproductions/{row['case_key']}/1").records
    cases = [json.loads(path.read_text())["case"] for path in kept.glob("*.json")]
    assert {case["model"] for case in cases} == {f"{NAPS}:naps", f"{NAPS}:longer"}
    assert {case["shape"] for case in cases} == {"times=3"}


def test_a_foreign_record_whose_workload_is_code_is_neither_imported_nor_run(swept, tmp_path, monkeypatch):
    _, rows, _, _ = swept
    foreign = copy.deepcopy(rows["naps"])
    foreign["case"]["workload"] = "tests.trap"
    path = tmp_path / "foreign.json"
    case = Case.from_dict({**foreign["case"], "model": "vit_tiny", "against": ""})
    foreign |= {
        "case": case.as_dict(),
        "case_key": case.key,
        "group_key": case.group_key,
        "baseline_key": case.baseline.key,
        "record_key": f"{case.key}.{foreign['machine_key']}",
    }
    write_json(path, seal(foreign))
    config = naps(tmp_path, job="reproduce", row=str(path))
    monkeypatch.setattr(workloads, "module_of", lambda name: pytest.fail(f"{name} was looked up"))
    with pytest.raises(UsageError, match="trust=true"):
        reproduce.run(config)


def test_a_bundle_holds_parts_and_curves_and_is_whole(swept):
    config, rows, _, _ = swept
    assert (
        bundle_job.run(config.model_copy(update={"report": config.report.model_copy(update={"enabled": False})})) == 0
    )
    path = f"{config.paths.results}.bundle.zip"
    assert verify(path).ok
    kept = {record["case_key"]: record for record in unpack_records(path)}
    for row in rows.values():
        assert kept[row["case_key"]]["curves"] == row["curves"]
        assert kept[row["case_key"]]["part_layers"].keys() == row["part_layers"].keys()


@pytest.fixture(scope="module")
def pages(swept, tmp_path_factory):
    return build(swept[0].paths.results, tmp_path_factory.mktemp("pages") / "site", figure_seconds=None)


def suite_page(pages):
    """The page of the one suite of a site."""
    (page,) = (pages.index.parent / "suites").glob("*.html")
    return page


def test_the_page_of_a_suite_has_a_column_per_part_and_names_the_other_side(pages):
    assert not pages.problems
    page = suite_page(pages).read_text()
    text = suite_page(pages).with_suffix(".rows.js").read_text()
    data = json.loads(re.fullmatch(r'waterlineData\("rows", (.*)\);\n', text, re.S)[1])
    titles = {column["key"]: column["title"] for column in data["columns"] if column["show"]}
    assert titles["latency_ms@long"] == "Latency (p50) of long" and "speedup@short" in titles
    place = {name: at for at, name in enumerate(data["rowFields"])}
    rows = {data["strings"][row[place["head"]]]: data["strings"][row[place["under"]]] for row in data["rows"]}
    assert rows == {f"{NAPS}:naps": "baseline", f"{NAPS}:longer": f"against {NAPS}:naps"}
    assert (
        "per image" not in page
        and "unreduced" not in page
        and "token" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    )


def test_the_page_of_a_suite_draws_gap_and_trade_off_of_every_part_by_its_own_times(swept, pages):
    config, _, _, _ = swept
    page = suite_page(pages).read_text()
    for part in ("short", "long"):
        for figure in ("efficiency-gap", "trade-off"):
            block = re.search(rf'<figure class="figure" id="{figure}-{part}".*?</figure>', page, re.S)
            assert block and f"{part}: " in block[0]
    site = load([Path(config.paths.results)])
    row = next(row for row in site.rows if not row.case.is_baseline)
    part = as_row_of(row, "long")
    assert part.value("latency_ms") == row.value("latency_ms", "long") and part.value("macs") == row.value(
        "macs", "long"
    )
    assert part.value("params") == row.value("params") and part.value("energy_j") is None
    assert part.value("realised_gain") == row.value("realised_gain", "long") and not part.parts


def test_the_page_of_a_case_has_its_parts_a_waterline_each_its_curves_and_facts(swept, pages):
    _, rows, _, _ = swept
    page = next((pages.index.parent / "cases").glob(f"{rows['longer']['case_key']}*.html")).read_text()
    for id in ("waterline", "waterline-short", "waterline-long", "curves"):
        assert f'<figure class="figure" id="{id}"' in page
    assert "The parts of a run" in page and "What the workload recorded besides" in page and "times" in page
    assert "Compared with <a href" in page and "Time in own operators" in page
    assert 'id="saved-per-block"' not in page  # another network: its layers are not these


def test_ranks_of_parts_stand_beside_those_of_the_whole(swept):
    config, _, _, _ = swept
    site = load([Path(config.paths.results)])
    for row in site.rows:
        assert {"latency_ms", "latency_ms@short", "latency_ms@long"} <= set(row.rank)
    longer = next(row for row in site.rows if not row.case.is_baseline)
    assert longer.against == f"{NAPS}:naps" and longer.cells["mac_ratio@long"].value == 1.0
    assert longer.cells["realised_gain@long"].value == pytest.approx(longer.value("speedup", "long"))
    assert "another network" in longer.cells["own_share"].note


def test_the_mirror_has_a_section_per_part(swept):
    _, rows, _, _ = swept
    run = describe(rows["longer"])
    assert {"latency/latency_ms", "latency/long/latency_ms", "compute/short/macs"} <= set(run.metrics)
    assert "interval/long/latency_ms_low" in run.metrics
    assert (run.params["workload"], run.params["times"], run.params["compared_with"]) == (NAPS, "3", f"{NAPS}:naps")
    assert "curves.csv" in run.files and "layers_long.csv" in run.files
    titles = [title for title, _ in sections_of(run.metrics)]
    assert "latency of long" in titles and titles[0] == "trade-offs (log10)"


def test_a_forecast_counts_what_the_meta_device_can_count_in_a_process_of_its_own(tmp_path):
    config = configuration(tmp_path, ["tests.faults.models:healthy"])
    made = plan.make(config, catalogue.load())
    recipe = recipe_for(made.cases[0], made, config)
    with Sharing(config.executor.timeouts_s.model_dump()) as workers:
        outcome = workers.run("estimate", {"recipes": [recipe.as_dict()]}, log=tmp_path / "log")
    assert isinstance(outcome, Done), outcome
    found = outcome.result["macs"][made.cases[0].key]
    assert found["why"] == "" and found["macs"]["forward"] > 0
    assert forecast.forecast(config, made).uncounted == {}
