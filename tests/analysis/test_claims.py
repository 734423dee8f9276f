from pathlib import Path

import pytest

from bench.analysis import claims, table
from bench.analysis.claims import Claim, evaluate
from bench.config.paths import suite_folders
from bench.errors import UsageError
from tests import synthetic

SOURCE = {"mode": "off-the-shelf", "hardware": "any", "convention": "matmul", "source": "Someone 2023, table 1",
          "comparable_when": "the right thing is measured"}  # fmt: skip


def claim(**changes):
    fields = {"method": "tome", "metric": "macs", "value": 2.7e9, "unit": "MAC", "relative_to_baseline": False,
              "model": "deit_small", "setting": "r=13", "tolerance": 0.02, **SOURCE}  # fmt: skip
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


def test_ratio_of_counts_is_to_the_plain_model():
    found = judge(claim(value=0.5876, unit="x", relative_to_baseline=True, tolerance=0.001), frame())
    assert found.kind == "reproduced" and found.measured == pytest.approx(2.703 / 4.6)


def test_setting_is_compared_as_values_not_as_text():
    wanted = claims._canonical("r = 13", "here")
    assert judge(claim(setting=wanted), frame()).kind == "reproduced"


def test_claim_about_the_papers_own_setting_names_the_nearest_row_only():
    found = judge(claim(setting=None, value=0.6, relative_to_baseline=True), frame())
    assert found.kind == "not comparable here" and "tome(r=13) on deit_small, has 0.5876" in found.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [({"method": "evit"}, "evit has not been measured"), ({"model": "vit_huge"}, "not been measured on vit_huge"),
     ({"setting": "r=8"}, "with r=8 at 224 px"), ({"resolution": 384}, "at 384 px"),
     ({"tolerance": None}, "not those of any row here")],
)  # fmt: skip
def test_what_was_not_measured_is_not_comparable_and_says_what_would_help(change, why):
    found = judge(claim(**change), frame())
    assert found.kind == "not comparable here" and why in found.reason
    assert found.remedy == "the right thing is measured"


def test_failed_estimated_and_modelled_rows_prove_nothing():
    rows = frame()
    rows.loc[rows["metric"] == "macs", "provenance"] = "estimated"
    assert judge(claim(), rows).kind == "not comparable here"
    rows = frame()
    rows["status"] = "crashed"
    assert judge(claim(), rows).kind == "not comparable here"


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
    wanted = claim(metric="accuracy", value=79.4, unit="%", tolerance=0.005, convention="ImageNet-1k top-1")
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


GOOD = """claims:
  - {method: tome, metric: macs, value: 2.7e+9, unit: MAC, relative_to_baseline: false, model: deit_small, setting: "r=13",
     mode: trained, hardware: any, convention: matmul, tolerance: 0.02, source: "X, table 1"}
"""


def test_file_becomes_claims(tmp_path):
    (found,) = claims.load(write(tmp_path, GOOD))
    assert (found.value, found.setting, found.suite, found.resolution) == (2.7e9, "r=13", tmp_path.name, 224)
    assert found.text == "tome(r=13) on deit_small: MACs 2.7 GMAC (trained; any)"
    assert claims.load(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("metric: macs", "metric: mac", "macs"), ("mode: trained", "mod: trained", 'unknown field "mod"'),
     (", source: \"X, table 1\"", "", "needs source"), ("2.7e+9", "many", "must be a number"),
     ("baseline: false", "baseline: 1", "true or false"), ("r=13", "r=__import__", "name=value"),
     ("claims:", "claim:", "list under")],
)  # fmt: skip
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
    [("2.7 G", 2.7e9, "reproduced"), ("2.70 G", 2.7e9, "reproduced"), ("2.703 G", 2.703e9, "reproduced"),
     ("2.702 G", 2.702e9, "not reproduced"), ("3 G", 3e9, "reproduced"), ("2.6 G", 2.6e9, "not reproduced"),
     ("2703 M", 2.703e9, "reproduced")],
)  # fmt: skip
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
    rows = [synthetic.record(accuracy=plain, **common),
            synthetic.record(method="tome", setting="r=13", accuracy=reduced, **common)]  # fmt: skip
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
