"""MLflow as its users know it: answers as charts, a view per network, data sets, system metrics, honest colours."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from bench.app.mirror import derived, experiment_of
from bench.config.schema import Tracking
from bench.store.records import Store, seal
from bench.tracking.mirror import Mirror
from bench.tracking.mlflow_view import VIEW_TAG, sections_of, view_key, view_state
from bench.tracking.over_processes import points
from bench.tracking.preview import waterline_svg
from bench.tracking.sweeps import ABOUT, NOTE, experiment_note
from bench.tracking.tracked_run import describe
from bench.tracking.ui import ui_command
from tests.sweeping import HEALTHY, configuration
from tests.synthetic import record, store
from tests.tracking.test_tracking import free_port, mirror, place, runs, server, sweep, template  # noqa: F401 - fixtures

SVG = "{http://www.w3.org/2000/svg}"


def lines(item, **more):
    """The record with further facts on the line of each of its processes."""
    made = [
        {**line, "started_at": f"2026-11-01T12:0{minute}:00+00:00", **more}
        for minute, line in enumerate(item["timing"]["invocations"])
    ]
    return {**item, "timing": {**item["timing"], "invocations": made}}


def test_values_of_each_process_are_points_with_a_step_and_a_moment():
    item = lines(record(method="tome", latency_ms=20.0), host={"other_cores": 0.5, "pressure_share": 0.25})
    found = {(point.name, point.step): point for point in points(item)}
    own = item["timing"]["invocations"]
    assert found["process/latency_ms", 2].value == own[2]["median_ms"]
    assert found["process/speedup", 1].value == own[1]["baseline_median_ms"] / own[1]["median_ms"]
    assert found["system/cores_of_others", 0].value == 0.5
    assert found["system/waiting_for_a_processor_percent", 0].value == 25
    assert found["process/latency_ms", 1].moment_ms - found["process/latency_ms", 0].moment_ms == 60_000


def test_what_is_drawn_on_logarithmic_axes_is_there_as_logarithms():
    run = describe(record(method="tome", latency_ms=20.0), {"compute/mac_ratio": 2.0})
    assert 10 ** run.metrics["log10/latency_ms"] == pytest.approx(run.metrics["latency/latency_ms"])
    assert run.metrics["log10/mac_ratio"] == pytest.approx(0.30103, abs=1e-5)
    assert run.metrics["latency/noise_floor_percent"] > 0


def test_the_first_chart_is_the_promise_against_what_was_measured():
    have = ["log10/mac_ratio", "log10/speedup", "log10/latency_ms", "quality/accuracy", "process/latency_ms"]
    titles = dict(sections_of(have))
    assert titles["promised and realised"] == [
        ("log10/mac_ratio", "log10/speedup"),
        ("log10/latency_ms", "quality/accuracy"),
    ]
    charts = json.loads(view_state("s", have))["compareRunCharts"]
    (line,) = [chart for chart in charts if chart["type"] == "LINE"]
    assert line["metricKey"] == "process/latency_ms" and line["scaleType"] == "log"
    assert not any(title in titles for title in ("log10", "process", "system"))


def test_a_disturbed_row_is_not_green_and_says_why():
    run = describe(record(status="contaminated"))
    assert run.status == "KILLED" and run.tags["disturbed"] == "true"
    assert "disturbed by other work, so not ranked" in run.tags["mlflow.note.content"]
    assert "disturbed" not in describe(record()).tags


def test_a_long_setting_is_short_in_name_and_column_and_whole_in_its_param():
    setting = "merge=[5, 4, 3, 2, 1]"
    run = describe(record(method="diffrate", setting=setting))
    assert run.name.startswith("deit_tiny · diffrate(merge=[5 … 1])")
    assert run.params["method_label"] == "diffrate(merge=[5 … 1])" and run.params["setting"] == setting


def test_promise_gain_and_own_share_follow_from_the_other_sides_record(tmp_path):
    made = store(tmp_path, with_samples=False)
    item = next(item for item in made.iterate() if item["case"]["method"] == "tome")
    found = derived(made, item)
    other = made.latest(item["baseline_key"], item["machine_key"])
    macs = [next(r["value"] for r in each["readings"] if r["metric"] == "macs") for each in (other, item)]
    speedup = next(r["value"] for r in item["readings"] if r["metric"] == "speedup")
    assert found["compute/mac_ratio"] == pytest.approx(macs[0] / macs[1])
    assert found["latency/realised_gain"] == pytest.approx(speedup * macs[1] / macs[0])
    assert derived(made, other) == {} and derived(Store(tmp_path / "empty"), item) == {}


def test_a_real_mlflow_has_steps_data_system_metrics_and_a_view_per_network(place):  # noqa: F811
    quality = {"quality": {"samples_digest": "ab" * 32, "task": {"name": "digits"}}}
    plain = seal({**lines(record(), host={"other_cores": 0.1}), **quality})
    other = seal({**lines(record(method="tome", latency_ms=30.0), host={"load_1min": 1.0}), **quality})
    small = seal(record(model="deit_small"))
    one = sweep(mirror(place), [plain, other, small])
    assert one.problems == []
    client, number = one.connection.client, one.connection.experiment_id
    run = next(run for run in runs(one) if run.data.params["method"] == "tome")
    history = client.get_metric_history(run.info.run_id, "process/latency_ms")
    assert [point.step for point in history] == [0, 1, 2]
    assert len(client.get_metric_history(run.info.run_id, "system/load_1min")) == 3
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", ("ab" * 32)[:36])
    (logged,) = run.outputs.model_outputs
    model = client.get_logged_model(logged.model_id)
    assert model.params["method"] == "tome" and "latency/latency_ms" in {metric.key for metric in model.metrics}
    tags = client.get_experiment(number).tags
    assert VIEW_TAG + view_key("vit_tokens", "deit_tiny") in tags
    assert VIEW_TAG + view_key("vit_tokens", "deit_small") not in tags  # one row is no comparison
    state = json.loads(tags[VIEW_TAG + view_key("vit_tokens", "deit_tiny")])
    assert len(client.search_runs([number], state["searchFilter"])) == 2
    assert "viewStateShareKey=waterline-vit_tokens-deit_tiny" in tags[NOTE]
    client.set_experiment_tag(number, NOTE, "mine")
    sweep(mirror(place), [seal(record(model="deit_base"))])
    assert client.get_experiment(number).tags[NOTE] == "mine"


def test_each_suite_has_an_experiment_of_its_own_unless_one_is_named(place):  # noqa: F811
    config = configuration(place, [HEALTHY])
    assert experiment_of(config, "ops") == "waterline-ops"
    assert experiment_of(config.model_copy(update={"tracking": Tracking(experiment="lab")}), "ops") == "lab"
    kept = store(place / "results", [record(), record(suite="ops", model="gemm")], with_samples=False)
    uri, name = f"sqlite:///{place}/mlflow/mlflow.db", "waterline-vit_tokens"
    one = Mirror(uri, name, place / "art", kept.root, suite="vit_tokens")
    (item,) = one.pending(kept)
    assert item["case"]["suite"] == "vit_tokens"
    link = sweep(one, [item]).link("http://127.0.0.1:5999")
    assert "viewStateShareKey=waterline-vit_tokens" in link and not one.pending(kept)
    assert ui_command(uri, experiment=name, suite="vit_tokens", port=5999)[2] == link
    assert ui_command(uri, experiment="waterline-ops", suite="ops", port=5999)[2] == link  # the newest there is


def test_the_description_links_every_view_that_fits():
    text = experiment_note("7", ["waterline-a", "waterline-a-net"])
    assert text.startswith(ABOUT) and "docs/" not in text  # no file that a reader of MLflow does not have
    assert all(f"*{word}*" in text for word in ("Promised", "measured", "realised"))
    (link,) = [line for line in text.splitlines() if line.startswith("- [a-net]")]
    path, _, query = urlsplit(link.partition("(")[2].rstrip(")")).fragment.partition("?")
    assert path == "/experiments/7/runs" and parse_qs(query)["viewStateShareKey"] == ["waterline-a-net"]
    assert len(experiment_note("7", [f"waterline-{'x' * 200}{n}" for n in range(60)])) <= 4900


def test_of_the_documentation_beside_a_report_only_says_where_it_is_made_what_the_pages_lead_to(place):  # noqa: F811
    site = place / "site"
    for name in ("index.html", "assets/a.js", "docs/index.html", "docs/search.html"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    one = sweep(mirror(place), [seal(record())], site / "index.html")
    (parent,) = runs(one, "sweep")
    files = {file.path for file in one.connection.client.list_artifacts(parent.info.run_id, "site")}
    assert files == {"site/index.html", "site/assets", "site/docs"} and one.problems == []
    (page,) = one.connection.client.list_artifacts(parent.info.run_id, "site/docs")
    text = Path(one.connection.client.download_artifacts(parent.info.run_id, page.path, str(place))).read_text()
    assert page.path == "site/docs/index.html" and "nox -s docs_site" in text


def test_the_waterline_is_a_picture_that_mlflow_shows_and_names_stay_text():
    item = record()
    item["layers"][1]["module_path"] = item["layers"][1]["name"] = "<script>x</script>"
    picture = ElementTree.fromstring(describe(item).files["waterline.svg"])
    bars = picture.findall(f"{SVG}g")
    assert len(bars) == len(item["layers"]) and bars[1].find(f"{SVG}title").text == "<script>x</script>"
    widths = [float(bar.findall(f"{SVG}rect")[-1].get("width")) for bar in bars]
    assert widths[1] / widths[0] == pytest.approx(
        item["layers"][1]["read_bytes"] / item["layers"][0]["read_bytes"], 0.01
    )
    assert "of the peak is used" in "".join(picture.itertext())
    assert waterline_svg({**item, "machine": {"peaks": []}}) is None and waterline_svg({**item, "layers": []}) is None


@pytest.mark.slow
def test_a_server_takes_steps_data_models_and_views_as_the_database_does(place):  # noqa: F811
    port = free_port()
    item = {**lines(record(method="tome", latency_ms=30.0), host={"load_1min": 1.0})}
    item |= {"quality": {"samples_digest": "cd" * 32, "task": {"name": "digits"}}}
    one = mirror(place, f"http://127.0.0.1:{port}")
    with server(place, port):
        sweep(one, [seal(record()), seal(item)])
        assert one.problems == []
        client = one.connection.client
        run = next(run for run in runs(one) if run.data.params["method"] == "tome")
        assert [point.step for point in client.get_metric_history(run.info.run_id, "system/load_1min")] == [0, 1, 2]
        assert [data.dataset.name for data in run.inputs.dataset_inputs] == ["digits"] and run.outputs.model_outputs
        assert "waterline.svg" in {file.path for file in client.list_artifacts(run.info.run_id)}
        assert client.get_experiment(one.connection.experiment_id).tags[NOTE].startswith(ABOUT)
