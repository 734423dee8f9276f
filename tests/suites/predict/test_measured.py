"""From records to rows and networks: what is read, what is refused, other conditions, a table of the user's own."""

import pytest

from bench import prediction_errors
from bench.errors import UsageError
from bench.meters.quality import QualityError, Run
from bench.store.records import Store
from bench.workloads import prediction
from suites.predict import measured, published, table
from suites.predict.costs import GivenCosts, MeasuredCosts
from suites.predict.networks import Network, fbnet_network, named
from suites.predict.predictors import given_predictor, table_predictor, wa_mlp
from tests import synthetic

PLANS = ("fbnet_a", "fbnet_b", "fbnet_c")


def cohort(model, spans, settings="", session="s", **fields):
    """The record of a cohort whose entries took these milliseconds in each process."""
    record = synthetic.record(
        model=model, suite="predict", workload="operator", task="none", model_settings=settings,
        invocations=len(spans), **fields,
    )  # fmt: skip
    record["timing"]["session"] = session
    for line, own in zip(record["timing"]["invocations"], spans, strict=True):
        line["spans"], line["seconds"] = own, 5.0
    record["content_hash"] = f"{model}{settings}{session}"
    return record


def row_ms(row):
    return row.macs / 1e8 + 0.01


def records(noise=(1.0, 1.0, 1.0), names=None):
    """A table and networks of an additive machine, each process a factor of its own away."""
    names = names or [f"fbnet_random_{number}" for number in range(20)]
    made = [fbnet_network(name) for name in names]
    released = [fbnet_network(name) for name in PLANS]
    rows = {row.key: row_ms(row) for network in [*made, *released] for row in network.rows}
    stages = [{key: ms * factor for key, ms in rows.items()} for factor in noise]
    return [
        cohort("fbnet_rows", stages, "stage=1", "rows"),
        *(
            cohort(
                "fbnet_networks",
                [{n.name: f * sum(map(row_ms, n.rows)) for n in group} for f in noise],
                text,
                "networks",
            )
            for group, text in ((made, "count=20"), (released, "released=True"))
        ),
    ]


def test_rows_and_networks_are_read_process_by_process():
    found = measured.read(records((1.0, 1.2, 1.44)))
    way = ("plain", "warm")
    assert len(found.networks[way]) == 23 and set(found.rows[way]) <= set(found.known)
    one = found.rows[way][fbnet_network("fbnet_a").rows[0].key]
    assert len(one.values) == 3 and one.value == pytest.approx(one.values[0] * 1.2)
    assert one.repeatability == pytest.approx(0.2203 / 1.2133, rel=1e-3) and one.is_refused and one.session == "rows"
    assert found.seconds == {"rows": 15.0, "networks": 15.0} and found.operations_per_s == pytest.approx(1.76e11)


def test_rows_of_another_condition_are_left_out_and_told():
    four = cohort("fbnet_rows", [{"stem_16_224": 99.0}] * 3, "stage=0", "four", threads=4)
    found = measured.read([*records(), four])
    assert found.rows["plain", "warm"].get("stem_16_224") != 99.0
    assert any("threads 4" in name for name in found.other_conditions)
    failed = cohort("fbnet_rows", [{"stem_16_224": 50.0}] * 3, "stage=0", status="ok")
    failed["status"] = "crashed"
    assert measured.read([*records(), failed]) == measured.read(records())


def test_forms_and_caches_are_kept_apart():
    cold = cohort("fbnet_rows", [{"stem_16_224": 7.0}] * 2, "inputs='cold', stage=0")
    folded = cohort("fbnet_rows", [{"stem_16_224": 3.0}] * 2, "form='folded', stage=0")
    found = measured.read([*records(), cold, folded])
    assert found.rows["plain", "cold"]["stem_16_224"].value == pytest.approx(7)
    assert found.rows["folded", "warm"]["stem_16_224"].value == pytest.approx(3)


def test_a_plain_forward_is_a_network_of_the_zoo_by_its_layers():
    forward = synthetic.record(model="timm:resnet18", suite="convnets", task="none", batch=1)
    forward["content_hash"] = "zoo"
    found = measured.read([*records(), forward])
    (zoo,) = [m for m in found.networks["plain", "warm"] if m.network.family == "zoo"]
    assert len(zoo.network.rows) == 4 and zoo.network.macs == pytest.approx(1.25e9) and zoo.cost.value > 30
    assert not measured.read([{**forward, "case": {**forward["case"], "suite": "vit_tokens"}}]).networks
    memory = measured.read([*records(), forward], "peak_memory_bytes")
    assert [m.cost.value for m in memory.networks["plain", "warm"]] == [pytest.approx(3.1e7)] and not memory.unit_ms


def test_a_network_that_was_trained_has_its_errors_as_a_cost():
    fields = {"model": "digits_cnn", "model_settings": "width=4", "suite": "predict", "resolution": 16, "batch": 1}
    made = [
        synthetic.record(accuracy=share, task="digits", seed=place, **fields)
        for place, share in enumerate((90.0, 100.0))
    ]
    found = measured.read([{**one, "content_hash": str(i)} for i, one in enumerate(made)], "accuracy")
    first, second = found.networks["plain", "warm"]
    assert (first.network.name, first.network.family) == ("digits_cnn(width=4) @16", "digits")
    assert first.cost.value == pytest.approx(10) and second.cost.value == pytest.approx(50 / 450)  # half an answer
    assert not found.unit_ms


class Folder(MeasuredCosts):
    """The task on records that are no files."""

    made = ()

    def here(self, question):
        return measured.read(self.made, question.target)


def judged(tmp_path, made, build=table_predictor, **settings):
    task, module = Folder(tmp_path, 0), build(**settings)
    task.made = made
    task.load(module, "predictor")
    return task.evaluation(module), task


def test_the_table_predicts_measured_networks_and_the_noise_is_their_ceiling(tmp_path):
    found, task = judged(tmp_path, records((1.0, 1.02, 0.98)))
    assert found.measured == pytest.approx(found.predicted) and len(found.names) >= 4
    assert len(found.repeats[0]) == 3 and not found.simulated and found.source and found.suite == "predict"
    assert found.facts["table_entries"] > 80 and found.facts["refused_entries"] == 0
    assert found.facts["training_networks"] == 0 and found.facts["build_seconds"] >= 15.0
    assert [f["code"] for f in found.flags] == []
    assert task.describe()["n"] == len(found.names)
    assert sum(len(networks) for networks, _ in task.batches(3)) == len(found.names)


def test_networks_whose_rows_are_refused_are_not_dropped_in_silence(tmp_path):
    made = records()
    key = fbnet_network("fbnet_a").rows[-1].key
    key = next(row.key for row in fbnet_network("fbnet_random_0").rows[1:-1])
    for place, line in enumerate(made[0]["timing"]["invocations"]):
        line["spans"][key] *= 1 + 0.2 * place
    found, _ = judged(tmp_path, made)
    assert found.facts["refused_entries"] == 1 and "refused_entries" in [f["code"] for f in found.flags]
    held = [*found.names, *found.unpredicted]
    needs = {name for name in held if key in {row.key for row in named(name).rows}}
    assert set(found.unpredicted) == needs and found.details["refused_rows"][key]
    assert all("more than 10 %" in why for why in found.unpredicted.values())


def test_rows_that_other_work_disturbed_are_told(tmp_path):
    made = records()
    made[1]["status"] = "contaminated"
    found, _ = judged(tmp_path, made)
    assert [f["code"] for f in found.flags] == ["disturbed_rows"]


def test_rows_and_networks_of_one_session_are_told(tmp_path):
    made = records()
    for record in made:
        record["timing"]["session"] = "one"
    found, _ = judged(tmp_path, made)
    assert [f["code"] for f in found.flags] == ["shared_session"]


def test_another_machines_table_is_tried_on_this_ones_networks(tmp_path):
    class Two(GivenCosts):
        def here(self, question):
            return measured.read(records())

        def elsewhere(self, question):
            return measured.read(records((2.0, 2.0, 2.0)))

    task, module = Two(tmp_path, 0, root=str(tmp_path)), table_predictor(split="d")
    task.load(module, "lut_sum")
    found = task.evaluation(module)
    assert len(found.names) == 23
    assert [p / y for y, p in zip(found.measured, found.predicted, strict=True)] == pytest.approx([2.0] * 23)


def test_the_published_table_has_no_time_for_what_does_not_repeat(tmp_path):
    from bench.store.records import Store

    made = records((1.0, 1.01, 1.02))
    key = next(iter(made[0]["timing"]["invocations"][0]["spans"]))
    made[0]["timing"]["invocations"][0]["spans"][key] *= 2
    store = Store(tmp_path)
    for record in made:
        store.write({k: v for k, v in record.items() if k != "content_hash"})
    told = published.told(str(tmp_path))
    assert f"| `{key}` |" in told and "refused | 3 |" in told and "1 refused" in told
    with pytest.raises(UsageError, match="cold"):
        published.told(str(tmp_path), inputs="cold")


CSV = "name, family, macs, layers, cycles, predicted\n" + "".join(
    f"n{i}, {'conv' if i % 3 == 0 else 'dense'}, {1000 * (i + 1)}, {2 + i % 5}, {7 * (i + 1)}, {7.7 * (i + 1)}\n"
    for i in range(80)
)


def given(tmp_path, build, **settings):
    path = tmp_path / "own.csv"
    path.write_text(CSV)
    task, module = GivenCosts(tmp_path, 0, root=str(path), results=str(tmp_path)), build(**settings)
    task.load(module, "own")
    return task.evaluation(module), task.score(Run(module))


def test_a_table_of_the_users_own_is_scored_by_the_same_numbers(tmp_path):
    found, score = given(tmp_path, given_predictor, column="predicted", target="cycles")
    assert score.value == pytest.approx(10.0) and len(found.names) == 80 and not found.in_ms
    _, score = given(tmp_path, table_predictor, kind="macs", target="cycles")
    assert score.value == pytest.approx(0, abs=1e-4)  # cycles are products over a constant here
    found, score = given(tmp_path, table_predictor, kind="trees", target="cycles")
    assert score.value < 60 and set(found.families) == {"dense", "conv"}
    found, _ = given(tmp_path, table_predictor, kind="macs", target="cycles", split="c")
    assert set(found.families) == {"conv"}
    found, _ = given(tmp_path, wa_mlp, inputs=3, width=16, steps=20, target="cycles")
    assert found.names
    with pytest.raises(UsageError, match="inputs=3"):
        given(tmp_path, wa_mlp, width=16, steps=20, target="cycles")
    with pytest.raises(UsageError, match="is a file"):
        given(tmp_path, table_predictor, kind="macs", target="cycles", split="d")


ZEROS = "macs, bram, dsp\n" + "".join(f"{1000 * (i + 1)}, {i // 20}, 0\n" for i in range(80))


def of_table(tmp_path, text, module):
    """The module, which has learned from a table of this text, and its task."""
    path = tmp_path / "own.csv"
    path.write_text(text)
    task = GivenCosts(tmp_path, 0, root=str(path), results=str(tmp_path))
    task.load(module, "own")
    return module, task


def test_costs_that_are_zero_are_learned_and_told_without_relative_errors(tmp_path):
    module, task = of_table(tmp_path, ZEROS, wa_mlp(inputs=2, width=64, target="bram"))
    found = task.evaluation(module)
    assert min(found.measured) == 0 and min(found.predicted) >= 0 and float(module.offset) == 1
    assert prediction_errors.rmse(found.measured, found.predicted) < 1.0  # of 0 to 3
    assert prediction_errors.mape(found.measured, found.predicted) is None
    with pytest.raises(QualityError, match="zero"):
        task.score(Run(module))
    plain, _ = of_table(tmp_path, ZEROS, wa_mlp(inputs=2, width=16, steps=2, target="macs"))
    assert float(plain.offset) == 0


def test_a_cost_that_is_zero_everywhere_is_predicted_as_next_to_nothing(tmp_path):
    module, task = of_table(tmp_path, ZEROS, wa_mlp(inputs=2, width=16, steps=5, target="dsp"))
    found = task.evaluation(module)
    assert set(found.measured) == {0.0} and all(0 <= value < 1e-3 for value in found.predicted)
    with pytest.raises(UsageError, match="median cost, which is zero"):
        of_table(tmp_path, ZEROS, wa_mlp(inputs=2, width=16, steps=5, target="dsp", decides=True))
    with pytest.raises(UsageError, match="negative"):
        of_table(tmp_path, ZEROS.replace(", 0\n", ", -1\n"), wa_mlp(inputs=2, width=16, steps=5, target="dsp"))


def test_multipliers_are_products_over_the_reuse_factor(tmp_path):
    # products 1000 to 80 000, each multiplier used 1, 2, 4 or 8 times, half a unit for a multiplier
    lines = [(1000 * (i + 1), 2 ** (i % 4), 500 * (i + 1) / 2 ** (i % 4)) for i in range(80)]
    text = "macs, reuse, lut\n" + "".join(f"{macs}, {reuse}, {cost}\n" for macs, reuse, cost in lines)
    errors = {}
    for kind in ("macs", "multipliers"):
        module, task = of_table(tmp_path, text, table_predictor(kind=kind, target="lut"))
        errors[kind] = task.score(Run(module)).value
    assert errors["multipliers"] < 1e-4 and errors["macs"] > 50
    without = Network("n", "given", given={"macs": 10.0})
    assert "column `reuse`" in module.lacks(without) and not module.lacks(named("jet_tagging"))
    assert module.work(named("top_quarks")) == 10 * 32 + 32


@pytest.mark.parametrize(
    ("text", "match"),
    [("name, cost\na, x\n", "line 2: cost"), ("name, cost\n", "no lines"), ("name, price\na, 1\n", "no column"),
     ("name, cost, macs\na, 1\n", "macs is None")],
)  # fmt: skip
def test_a_table_that_cannot_be_read_says_where(tmp_path, text, match):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=match):
        table.read(path, "cost")


def test_the_users_data_is_named_in_short_and_its_task_takes_it(tmp_path):
    from bench.config import catalogue
    from bench.config.schema import Data
    from bench.plan.plan import make
    from tests.sweeping import configuration

    path = tmp_path / "own.csv"
    path.write_text(CSV)
    assert Data.model_validate(str(path)) == Data(root=str(path))
    block = {"models": ["given_predictor"], "workload": "prediction"}
    suite = {"name": "predict", "task": "given_costs", "grids": {"default": [block]}}
    (case,) = make(configuration(tmp_path, [], suite=suite, data=str(path)), catalogue.load()).cases
    assert case.task == "given_costs" and case.data


def test_a_folder_of_many_suites_gives_what_all_of_its_records_give(tmp_path):
    """Records that can be no rows are known by their heads; the hash of what it is made from goes over all of them."""
    store = Store(tmp_path)
    other = [synthetic.record(), synthetic.record(suite="convnets", model="small", batch=2)]
    failed = synthetic.record(suite="predict", model="fbnet_rows", status="crashed", error={"phase": "load"})
    for record in [*records(), *other, {**failed, "error": {"phase": "load", "type": "E", "message": "m"}}]:
        store.write(record)
    found, every = measured.of_store(store), list(store.iterate())
    assert found == measured.read(every) and found.networks and len(every) == len(records()) + 3
    assert found.source == prediction.source_of(every, "predict")
