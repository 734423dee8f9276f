from dataclasses import replace
from pathlib import Path

import pytest

from bench.analysis import claims, table
from bench.analysis.claims import Claim, evaluate
from bench.config.claims import canonical
from bench.config.paths import suite_folders
from bench.errors import UsageError
from bench.reading import reading
from tests import synthetic

SOURCE = {
    "mode": "off-the-shelf",
    "hardware": "any",
    "convention": "matmul",
    "source": "Someone 2023, table 1",
    "comparable_when": "the right thing is measured",
}


def claim(**changes):
    fields = {
        "method": "tome",
        "metric": "macs",
        "value": 2.7e9,
        "unit": "MAC",
        "relative_to_baseline": False,
        "model": "deit_small",
        "setting": "r=13",
        "tolerance": 0.02,
        "resolution": 224,
        "tasks": ("imagefolder",),
        **SOURCE,
    }
    return Claim(**{**fields, **changes})


def frame(**changes):
    common = {"model": "deit_small", **changes}
    plain = synthetic.record(macs=4.6e9, baseline_macs=4.6e9, latency_ms=130.0, baseline_ms=130.0, **common)
    tome = synthetic.record(method="tome", setting="r=13", macs=2.703e9, latency_ms=80.0, baseline_ms=130.0, **common)
    return table.from_records([plain, tome])


def judge(one, rows, *more):
    return evaluate([one, *more], rows)[0]


# ------------------------------------------------------------------------------------------------ counts


def test_count_is_reproduced_within_the_printed_precision():
    found = judge(claim(), frame())
    assert found.kind == "reproduced" and found.measured == pytest.approx(2.703e9)
    assert "+0.11 %" in found.reason and len(found.case_keys) == 1


def test_count_beyond_the_printed_precision_is_not_reproduced():
    assert judge(claim(value=2.6e9), frame()).kind == "not reproduced"
    assert judge(claim(value=2.7e9, tolerance=0.001), frame()).kind == "not reproduced"


@pytest.mark.parametrize(
    ("ends", "tolerance", "kind"),
    [
        ((1.40, 1.55), 0.0, "reproduced"),
        ((1.52, 1.60), 0.0, "not reproduced"),
        ((1.52, 1.60), 0.02, "reproduced"),
        ((None, None), 0.1, "not comparable here"),
    ],
)
def test_a_pure_number_of_a_closed_form_is_held_to_its_interval_on_any_machine(ends, tolerance, kind):
    row = synthetic.record(model="known_server", workload="pipeline", task="none", shape="rate=50.0, seconds=20.0")
    low, high = ends
    one = reading("sojourn_in_services", 1.5, "measured", ci_low=low, ci_high=high, n=5, part="request").as_dict()
    row["readings"] = [*row["readings"], one]
    form = claim(
        method="none", setting=None, model="known_server", metric="sojourn_in_services", value=1.5, unit="x",
        tolerance=tolerance, resolution=None, workload="pipeline", shape="rate=50.0",
    )  # fmt: skip
    assert judge(form, table.from_records([row])).kind == kind
    other = judge(replace(form, shape="rate=80.0"), table.from_records([row]))
    assert other.kind == "not comparable here" and "has not been measured" in other.reason


def test_ratio_of_counts_is_to_the_plain_model():
    found = judge(claim(value=0.5876, unit="x", relative_to_baseline=True, tolerance=0.001), frame())
    assert found.kind == "reproduced" and found.measured == pytest.approx(2.703 / 4.6)


@pytest.mark.parametrize("side", [0, 1])
def test_a_ratio_to_a_count_that_is_a_lower_bound_is_not_judged(side):
    sides = [
        synthetic.record(model="deit_small", macs=4.6e9, baseline_macs=4.6e9),
        synthetic.record(model="deit_small", method="tome", setting="r=13", macs=2.3e9),
    ]
    half = claim(value=0.5, unit="x", relative_to_baseline=True, tolerance=0.0)

    def judged(one, share):
        sides[side]["counts"]["uncounted"] = [{"operator": "aten::cholesky", "time_share": share}]
        return evaluate([one], table.from_records(sides), records=sides)[0]

    assert judged(half, 0.005).kind == "reproduced"
    bound = judged(half, 0.13)
    name = ("deit_small", "deit_small with tome(r=13)")[side]
    assert bound.kind == "not comparable here" and bound.measured is None
    assert bound.reason == (
        f"not judged: a count is a lower bound ({name}: aten::cholesky is not counted and takes 13% of the time)"
    )
    assert judged(claim(value=2.3e9, tolerance=0.0), 0.13).kind == "reproduced"  # no ratio


def test_nonzero_products_are_set_against_all_of_a_plain_network_which_names_no_kernel():
    plain = synthetic.record(model="deit_small", macs=4.0e9, baseline_macs=4.0e9, baseline_ms=1.0, latency_ms=1.0)
    pruned = synthetic.record(model="deit_small", method="tome", setting="r=13", macs=4.0e9, latency_ms=1.0)
    pruned["readings"] = [*pruned["readings"], reading("macs_nonzero", 1.0e9, "counted").as_dict()]
    rows = table.from_records([plain, pruned])
    found = judge(claim(metric="macs_nonzero", value=0.25, unit="x", relative_to_baseline=True, tolerance=0.0), rows)
    assert (found.kind, found.measured) == ("reproduced", 0.25)


def test_setting_is_compared_as_values_not_as_text():
    wanted = canonical("r = 13", "here")
    assert judge(claim(setting=wanted), frame()).kind == "reproduced"


def test_claim_about_the_papers_own_setting_names_the_nearest_row_only():
    found = judge(claim(setting=None, value=0.6, relative_to_baseline=True), frame())
    assert found.kind == "not comparable here" and "tome(r=13) on deit_small, has 0.5876" in found.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "evit"}, "evit has not been measured"),
        ({"model": "vit_huge"}, "not been measured on vit_huge"),
        ({"setting": "r=8"}, "with r=8 at 224 px"),
        ({"resolution": 384}, "at 384 px"),
        ({"tolerance": None}, "not those of any row here"),
    ],
)
def test_what_was_not_measured_is_not_comparable_and_says_what_would_help(change, why):
    found = judge(claim(**change), frame())
    assert found.kind == "not comparable here" and why in found.reason
    assert found.remedy == "the right thing is measured"


def test_failed_estimated_and_modelled_rows_prove_nothing():
    for provenance in ("estimated", "modelled"):
        rows = frame()
        rows.loc[rows["metric"] == "macs", "provenance"] = provenance
        assert judge(claim(), rows).kind == "not comparable here"
    rows = frame()
    rows["status"] = "crashed"
    assert judge(claim(), rows).kind == "not comparable here"


def test_what_a_papers_formula_gives_is_judged_and_called_modelled():
    row = synthetic.record(model="deit_small", macs=4.6e9)
    row["readings"] = [*row["readings"], reading("modelled_energy_j", 2.489e-3, "modelled").as_dict()]
    energy = claim(method="none", setting=None, metric="modelled_energy_j", unit="J", value=2.5e-3, tolerance=0.01)
    found = judge(energy, table.from_records([row]))
    assert found.kind == "reproduced" and found.reason.startswith("modelled 0.002489 J")


# ------------------------------------------------------------------------------------------------ times


def speed(**changes):
    fields = {"metric": "speedup", "value": 1.6, "unit": "x", "relative_to_baseline": True, "tolerance": 0.1}
    return claim(**{**fields, **changes})


def test_speed_is_judged_as_a_ratio_with_its_interval():
    found = judge(speed(), frame())
    assert found.kind == "reproduced" and (found.low, found.high) == pytest.approx((1.625 * 0.98, 1.625 * 1.02))
    assert judge(speed(value=1.2), frame()).kind == "reproduced"
    assert judge(speed(value=2.5), frame()).kind == "not reproduced"
    noisy = judge(speed(value=1.81), frame())
    assert noisy.kind == "not comparable here" and noisy.remedy == "more invocations"


def test_latency_ratio_is_the_inverse_of_the_speed_up():
    assert judge(speed(metric="latency_ms", value=1 / 1.6), frame()).kind == "reproduced"
    assert judge(speed(metric="latency_ms", value=0.4), frame()).kind == "not reproduced"


def test_absolute_times_belong_to_their_machine():
    found = judge(speed(metric="throughput_per_s", value=1550, relative_to_baseline=False), frame())
    assert found.kind == "not comparable here" and "belongs to its machine" in found.reason


def test_claim_about_a_gpu_is_not_judged_on_a_cpu_but_shows_what_the_cpu_gave():
    found = judge(speed(hardware="GPU, large batch"), frame())
    assert found.kind == "not comparable here" and "on cpu, batch 1, the speed-up is 1.6" in found.reason
    assert judge(speed(hardware="GPU, large batch"), frame(device="cuda", batch=1)).kind == "not comparable here"
    assert judge(speed(hardware="GPU, large batch"), frame(device="cuda", batch=64)).kind == "reproduced"
    assert judge(speed(hardware="V100"), frame(device="cuda", batch=64)).kind == "reproduced"


def test_speed_without_a_setting_belongs_to_the_macs_that_the_paper_claims():
    macs = claim(setting=None, value=0.59, relative_to_baseline=True)
    assert judge(speed(setting=None), frame(), macs).kind == "reproduced"
    far = claim(setting=None, value=0.4, relative_to_baseline=True)
    assert "no row has the 0.4" in judge(speed(setting=None), frame(), far).reason
    assert "states no MAC ratio" in judge(speed(setting=None), frame()).reason


# ------------------------------------------------------------------------------------------------ accuracy


def test_accuracy_of_other_data_is_never_set_against_a_paper():
    found = judge(claim(metric="accuracy", value=79.4, unit="%", tolerance=0.005), frame(task="digits"))
    assert found.kind == "not comparable here" and "paper's data" in found.reason


def imagenet(accuracy):
    common = {"model": "deit_small", "task": "imagefolder", "checkpoint": "abc"}
    plain = synthetic.record(accuracy=79.8, **common)
    return table.from_records([plain, synthetic.record(method="tome", setting="r=13", accuracy=accuracy, **common)])


def test_accuracy_on_an_image_folder_is_judged_for_off_the_shelf_claims():
    wanted = claim(metric="accuracy", value=79.4, unit="%", tolerance=0.005)
    assert judge(wanted, imagenet(79.0)).kind == "reproduced"
    assert judge(wanted, imagenet(70.0)).kind == "not reproduced"
    drop = claim(metric="accuracy", value=-0.4, unit="%", tolerance=0.1, relative_to_baseline=True)
    assert judge(drop, imagenet(79.4)).kind == "reproduced"
    trained = judge(claim(metric="accuracy", value=79.4, unit="%", mode="trained"), imagenet(79.4))
    assert trained.kind == "not comparable here" and "trained with the method" in trained.reason


def test_imagenet_claim_needs_as_many_images_as_imagenet_has():
    wanted = claim(metric="accuracy", value=79.4, unit="%", tolerance=0.005, samples=50_000)
    rows = imagenet(79.4)
    assert judge(wanted, rows).kind == "not comparable here"
    rows.loc[rows["metric"] == "accuracy", "n"] = 50_000
    assert judge(wanted, rows).kind == "reproduced"


def test_machine_bound_quantities_do_not_travel():
    found = judge(claim(metric="energy_j", unit="J", value=1.0, relative_to_baseline=True), frame())
    assert found.kind == "not comparable here" and "no paper's number travels" in found.reason


# ------------------------------------------------------------------------------------------------ the file


def write(folder, text):
    (folder / "claims.yaml").write_text(text)
    return folder


GOOD = """assume: {resolution: 224}
claims:
  - {method: tome, metric: macs, value: 2.7e+9, unit: MAC, relative_to_baseline: false, model: deit_small,
     setting: "r=13", mode: trained, hardware: any, convention: matmul, tolerance: 0.02, source: "X, table 1"}
"""


def test_file_becomes_claims(tmp_path):
    (found,) = claims.load(write(tmp_path, GOOD))
    assert (found.value, found.setting, found.suite, found.resolution) == (2.7e9, "r=13", tmp_path.name, 224)
    assert found.text == "tome(r=13) on deit_small: MACs 2.7 GMAC (trained)"
    assert claims.load(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("metric: macs", "metric: mac", "macs"),
        ("mode: trained", "mod: trained", 'unknown field "mod"'),
        (', source: "X, table 1"', "", "needs source"),
        ("2.7e+9", "many", "must be a number"),
        ("baseline: false", "baseline: 1", "true or false"),
        ("r=13", "r=__import__", "name=value"),
        ("claims:", "claim:", "list under"),
    ],
)
def test_mistake_in_the_file_is_named(tmp_path, old, new, message):
    with pytest.raises(UsageError, match=message) as error:
        claims.load(write(tmp_path, GOOD.replace(old, new)))
    assert str(tmp_path) in str(error.value)


def test_claims_of_the_suites_can_be_read_and_judged():
    read = [item for folder in suite_folders() for item in claims.load(folder)]
    assert any(item.method == "tome" and item.model == "deit_small" for item in read)
    judged = evaluate(read, frame())
    assert len(judged) == len(read)
    tome = next(j for j in judged if j.claim.method == "tome" and j.claim.metric == "macs")
    assert tome.kind == "reproduced"
    for item in claims.as_dicts(judged):
        assert item["kind"] in {"reproduced", "not-reproduced", "not-comparable-here"}
        assert item["text"] and item["evidence"]
        assert item["verdict"] != "not comparable here" or item["remedy"]


def test_every_claim_is_judged_on_an_empty_table():
    read = claims.load(Path("suites/vit_tokens").resolve())
    assert {j.kind for j in evaluate(read, table.from_records([]))} == {"not comparable here"}


# ------------------------------------------------------------------------------------------------ digits and pairs


@pytest.mark.parametrize(
    ("printed", "value", "kind"),
    [
        ("2.7 G", 2.7e9, "reproduced"),
        ("2.70 G", 2.7e9, "reproduced"),
        ("2.703 G", 2.703e9, "reproduced"),
        ("2.702 G", 2.702e9, "not reproduced"),
        ("3 G", 3e9, "reproduced"),
        ("2.6 G", 2.6e9, "not reproduced"),
        ("2703 M", 2.703e9, "reproduced"),
    ],
)
def test_a_count_is_held_to_the_digits_that_the_paper_prints(printed, value, kind):
    found = judge(claim(value=value, printed=printed, tolerance=0.5), frame())
    assert found.kind == kind and f"the paper prints {printed}" in found.reason


@pytest.mark.parametrize("printed", ["2.8 G", "2.7 X", "about 2.7", "27"])
def test_a_printed_number_that_is_not_the_value_is_named(tmp_path, printed):
    with pytest.raises(UsageError, match="printed"):
        claims.load(write(tmp_path, GOOD.replace("mode:", f'printed: "{printed}", mode:')))


def test_a_difference_of_accuracies_is_judged_by_its_paired_interval():
    drop = claim(metric="accuracy", value=-1.5, unit="%", tolerance=0.0, relative_to_baseline=True)
    rows = imagenet(79.4)  # 79.8 % without the method, each -1.5 to +1.2
    apart = judge(drop, rows)
    # -0.4 points; below hypot(1.5, 1.2), above hypot(1.2, 1.5)
    assert apart.kind == "reproduced"
    assert (apart.low, apart.high) == (pytest.approx(-0.4 - 1.9209, abs=1e-3), pytest.approx(-0.4 + 1.9209, abs=1e-3))
    paired = evaluate([drop], rows, {apart.case_keys[0]: (-0.4, -0.6, -0.2)})[0]
    assert paired.kind == "not reproduced" and "-0.40 points here (-0.60 to -0.20)" in paired.reason


# ------------------------------------------------------------------------------------------------ whose weights


def scored(plain, reduced):
    """An accuracy of ImageNet's validation set with a checkpoint, of the plain model and of tome(r=13)."""
    common = {"model": "deit_small", "task": "imagefolder", "checkpoint": "weights.pth"}
    rows = [
        synthetic.record(accuracy=plain, **common),
        synthetic.record(method="tome", setting="r=13", accuracy=reduced, **common),
    ]
    for row in rows:
        for item in row["readings"]:
            if item["metric"] == "accuracy":
                item["n"] = 50_000
    return table.from_records(rows)


def accuracy(**changes):
    fields = {"metric": "accuracy", "value": -2.11, "unit": "%", "relative_to_baseline": True, "tolerance": 0.3}
    return claim(**{**fields, "convention": "ImageNet-1k top-1", "plain": 81.41, **changes})


def test_an_accuracy_off_the_shelf_is_judged_on_the_papers_weights_only():
    found = judge(accuracy(), scored(79.83, 79.3))
    assert found.kind == "not comparable here"
    assert "other weights: the plain model scores 79.83 % here and 81.41 % in the paper" in found.reason
    assert judge(accuracy(), scored(81.45, 79.3)).kind == "reproduced"
    assert judge(accuracy(value=-8.0), scored(81.45, 79.3)).kind == "not reproduced"


def test_a_model_with_settings_of_its_own_is_not_the_papers():
    assert judge(claim(), frame(model_settings="depth=6")).kind == "not comparable here"


# ------------------------------------------------------------------------------------------------ models, sides, parts


def test_a_claim_about_a_model_needs_no_method_and_no_setting():
    plain = claim(method="none", setting="", value=4.6e9, printed="4.6 G")
    assert plain.text == "deit_small: MACs 4.6 GMAC (off-the-shelf)"
    found = judge(plain, frame())
    assert found.kind == "reproduced" and found.measured == 4.6e9
    absent = judge(claim(method="none", setting="", model="resnet50"), frame())
    assert "resnet50 has not been measured at 224 px" in absent.reason


def two_models(**changes):
    """A small network of 3 GMACs set against another of 4."""
    small = synthetic.record(model="small", macs=3e9, against="model='large'", against_digest="d", **changes)
    large = synthetic.record(model="large", macs=4e9, **changes)
    return [small, {**large, "case_key": small["baseline_key"], "baseline_key": small["baseline_key"]}]


def test_a_claim_goes_by_the_other_side_that_it_names():
    wanted = claim(
        method="none",
        setting="",
        model="small",
        value=0.75,
        unit="x",
        relative_to_baseline=True,
        against="model='large'",
        tolerance=0.001,
    )
    rows = table.from_records(two_models())
    found = judge(wanted, rows)
    assert found.kind == "reproduced" and "0.75 of the other side" in found.reason
    other = judge(claim(method="none", setting="", model="small", against="model='medium'"), rows)
    assert "against model='medium'" in other.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"workload": "generate"}, "as generate"),
        ({"backend": "onnxruntime"}, "on onnxruntime"),
        ({"task": "text_bytes"}, "for the task text_bytes"),
        ({"shape": "context=512"}, "of context=512"),
    ],
)
def test_rows_of_another_workload_backend_task_or_shape_are_not_the_claims(change, why):
    found = judge(claim(**change), frame())
    assert found.kind == "not comparable here" and why in found.reason


def test_the_shape_that_a_claim_names_is_part_of_the_rows():
    rows = table.from_records(
        [
            synthetic.record(
                model="deit_small", method="tome", setting="r=13", macs=2.7e9, shape="context=512, new_tokens=32"
            )
        ]
    )
    assert judge(claim(shape="context=512"), rows).kind == "reproduced"
    assert judge(claim(shape="context=64"), rows).kind == "not comparable here"


def test_a_simulated_row_claims_no_speed():
    rows = frame(device="cuda", batch=64)
    rows.loc[rows["method"] == "tome", "execution"] = "simulated"
    found = judge(speed(), rows)
    assert found.kind == "not comparable here" and "cost of the simulation" in found.reason
    assert judge(claim(), rows).kind == "reproduced"  # its counts are counts


# ------------------------------------------------------------------------------------------------ conventions,
# misprints


def layer(**fields):
    return {
        "module_path": "m",
        "op": "Linear",
        "macs": 0,
        "vector_ops": 0,
        "operators": [],
        "calls": 1,
        "dtype": "float32",
        "weight_bytes": 0,
        "output_shapes": [],
        **fields,
    }


#: Two samples: a linear layer 8 -> 4 with its bias on 3 tokens, one without, attention of 72 products, a pooling layer.
LAYERS = [
    layer(macs=2 * 3 * 32, weight_bytes=4 * (32 + 4), output_shapes=[[2, 3, 4]], operators=["aten::addmm"]),
    layer(macs=2 * 3 * 16, weight_bytes=4 * 16, output_shapes=[[2, 3, 4]], operators=["aten::mm"]),
    layer(op="Attention", macs=2 * 72, operators=["aten::_scaled_dot_product_flash_attention_for_cpu"]),
    layer(op="AvgPool2d", vector_ops=2 * 10, operators=["aten::avg_pool2d"]),
]
MACS = 3 * 32 + 3 * 16 + 72


def counted_record(layers=LAYERS, **readings):
    item = synthetic.record(model="deit_small", batch=2, macs=MACS)
    from bench.reading import reading

    extra = {"macs_method": 0.0, "vector_ops": 50.0, "fourier_operations": 40.0, **readings}
    item["readings"] += [reading(name, value, "counted").as_dict() for name, value in extra.items()]
    return {**item, "layers": layers}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("macs", MACS),
        ("macs_called_flops", MACS),
        ("flops", 2 * MACS),
        ("fvcore", MACS * 1.004),
        ("with_method", MACS),
        ("all", MACS + 50),
        ("without_attention", MACS - 72),
        ("with_biases", MACS + 3 * 4),
        ("with_pooling", MACS + 10),
        ("without_fourier", MACS - 40 / 2 / 2),
    ],
)
def test_a_claim_is_held_to_its_own_way_of_counting(name, value):
    item = counted_record()
    wanted = claim(method="none", setting="", value=value, tolerance=1e-9, counted_as=name)
    rows = table.from_records([item])
    found = evaluate([wanted], rows, records=[item])[0]
    assert found.kind == "reproduced" and found.measured == pytest.approx(value)
    (told,) = claims.as_dicts([found])
    assert f"counted as {name}: " in told["convention"] and told["convention"].startswith("matmul; ")
    assert "records" in evaluate([wanted], rows)[0].reason  # without them nothing is judged


def test_a_row_that_lacks_what_a_convention_needs_stops_no_claim_of_another():
    item = counted_record()
    bare = synthetic.record(model="deit_tiny", batch=2, macs=MACS)
    wanted = claim(method="none", setting="", value=MACS - 10, tolerance=1e-9, counted_as="without_fourier")
    assert wanted.model == item["case"]["model"] != bare["case"]["model"]
    found = evaluate([wanted], table.from_records([bare, item]), records=[bare, item])[0]
    assert found.kind == "reproduced"


def test_what_a_convention_cannot_know_is_a_reason_and_no_number():
    mixed = [layer(macs=8, operators=["aten::bmm", "aten::addmm"])]
    for item, words in [
        (counted_record(mixed), "in one module"),
        (counted_record([]), "no layers"),
        (counted_record(macs_method=4.0), "cannot be told from"),
    ]:
        wanted = claim(method="none", setting="", value=1.0, counted_as="without_attention")
        found = evaluate([wanted], table.from_records([item]), records=[item])[0]
        assert found.kind == "not comparable here" and words in found.reason


def test_a_factor_converts_what_was_counted_and_is_said():
    found = judge(claim(value=5.406e9, factor=2.0, tolerance=1e-6), frame())
    assert found.kind == "reproduced" and found.claim.counting == "2 times what is counted here"


def test_a_misprint_is_data_beside_the_value_that_is_judged():
    wanted = claim(value=2.7e9, as_printed="27 G", follows_from_its_own_table=True)
    found = judge(wanted, frame())
    assert found.kind == "reproduced"
    assert found.reason.endswith("the paper prints 27 G; the value follows from the paper's own table")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("counted_as: flop", 'did you mean "flops"'),
        ("counted_as: flops, factor: 2", "keep one"),
        ("factor: 0", "above 0"),
        ("workload: generat", 'did you mean "generate"'),
        ("workload: generate, shape: {contxt: 3}", "contxt"),
        ("shape: {context: 3}", "say which with workload"),
        ("against: {modl: x}", 'unknown axis "modl"'),
        ("follows_from_its_own_table: 1", "true or false"),
    ],
)
def test_a_wrong_name_in_an_entry_is_answered_with_the_right_one(tmp_path, extra, words):
    with pytest.raises(UsageError) as error:
        claims.load(write(tmp_path, GOOD.replace("mode:", f"{extra}, mode:")))
    assert words in str(error.value) and "claim 1" in str(error.value)


def test_counted_as_is_about_work_only_and_an_unknown_assumption_is_refused(tmp_path):
    with pytest.raises(UsageError, match="about macs"):
        claims.load(write(tmp_path, GOOD.replace("metric: macs", "metric: params, counted_as: flops")))
    with pytest.raises(UsageError, match='assume: unknown field "resolutoin"'):
        claims.load(write(tmp_path, GOOD.replace("resolution", "resolutoin")))


def test_an_entry_takes_what_its_file_assumes_unless_it_says_otherwise(tmp_path):
    text = GOOD.replace("{resolution: 224}", "{resolution: 384, tasks: [imagefolder], samples: 50000}")
    (found,) = claims.load(write(tmp_path, text))
    assert (found.resolution, found.tasks, found.samples) == (384, ("imagefolder",), 50000)
    (own,) = claims.load(write(tmp_path, text.replace("mode:", "resolution: null, against: large, mode:")))
    assert own.resolution is None and own.against == "model='large'"
