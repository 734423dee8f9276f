"""Each check of the battery finds its fault and lets a sound subject pass; known failures are held to be such."""

import subprocess
import sys

import pytest
import torch

from bench.errors import UsageError
from bench.testing import CHECKS, CheckFailed, Skipped, Subject, checks_for, run_all, run_check

HERE = "tests.testing.misbehaving"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def subject(method="good", **claims):
    return Subject(
        "it", model=f"{HERE}:net(width=8)", method=f"{HERE}:{method}", shape={"batch": 2, "resolution": 4}, **claims
    )


GOOD = subject(
    "good(keep=0.5)",
    identity=f"{HERE}:good(keep=1.0)",
    closed_form=f"{HERE}:good_macs",
    step_form=f"{HERE}:good_step",
    dtypes=("fp32", "bf16", "fp64"),
    refuses=(f"{HERE}:good(keep=0)", f"{HERE}:good(kep=1)"),
)


def test_a_sound_subject_passes_every_check():
    assert run_all(GOOD) == dict.fromkeys(CHECKS, "holds")


FAULTS = [
    ("builds", "not_a_number", {}, "NaN"),
    ("builds", "kernel_of_its_own", {}, 'labelled: kernel "3" of Net'),
    ("builds", "execution_of_its_own", {}, 'labelled: execution "realint" of Net: did you mean "real-int"'),
    ("seeded", "unseeded", {}, "differ in first.bias"),
    ("steady", "random_answers", {}, "second run"),
    ("steady", "writes_inputs", {}, "answers differently|own inputs"),
    ("identity", "good", {"identity": f"{HERE}:good(keep=0.9)"}, "differs from the plain network"),
    ("meta_counts", "other_on_meta", {}, "macs on the meta device"),
    (
        "closed_form",
        "good",
        {"closed_form": f"{HERE}:wrong_macs"},
        r"executed 212 MACs a sample, the closed form says 213",
    ),
    ("step_form", "good", {"step_form": f"{HERE}:wrong_step"}, r"macs_backward 232.*, the closed form says 233"),
    ("state_loads", "state_outside", {}, "not all of it is in the state"),
    ("global_state", "sets_threads", {}, "threads from 1 to 3, default dtype from torch.float32 to torch.float64"),
    ("hands_over", "no_pickle", {}, "it holds a lock"),
    ("hands_over", "ends_another_process", {}, "the other process has ended with code 7"),
    ("dtypes", "single_precision", {"dtypes": ("bf16",)}, "built in bf16 it answers in torch.float32"),
    ("dtypes", "good", {"dtypes": ("tf32",)}, "only a GPU"),
    ("batches", "looks_at_neighbours", {}, "neighbour in the batch"),
    ("annotations", "not_understood", {}, "keep, other is missing or not of the vocabulary"),
    ("refusals", "refuses_nothing", {"refuses": (f"{HERE}:refuses_nothing(keep=7.0)",)}, "is not refused"),
]


@pytest.mark.parametrize(
    "check, method, claims, words", FAULTS, ids=[f"{check}-{method}" for check, method, *_ in FAULTS]
)
def test_each_check_finds_its_fault(check, method, claims, words):
    with pytest.raises(CheckFailed, match=words):
        run_check(check, subject(method, **claims))


def test_there_is_a_fault_for_every_check():
    assert {check for check, *_ in FAULTS} == set(CHECKS)


def test_a_subject_that_ends_the_other_process_spoils_no_later_one():
    with pytest.raises(CheckFailed):
        run_check("hands_over", subject("ends_another_process"))
    run_check("hands_over", subject())


def test_all_failures_are_told_at_once():
    with pytest.raises(CheckFailed, match=r"(?s)steady: .*second run.*\nstate_loads: .*\nbatches: "):
        run_all(subject("random_answers"))


def test_a_known_failure_passes_and_its_unexpected_pass_is_an_error():
    known = subject("looks_at_neighbours", known_failures={"batches": "it subtracts the batch's mean"})
    run_check("batches", known)
    assert run_all(known)["batches"] == "known to fail: it subtracts the batch's mean"
    with pytest.raises(CheckFailed, match=r"batches holds, although it is a known failure \(an old reason\)"):
        run_check("batches", subject(known_failures={"batches": "an old reason"}))


@pytest.mark.parametrize(
    "claims, words",
    [
        ({"known_failures": {"batchs": "x"}}, 'no check "batchs"; did you mean "batches"'),
        ({"known_failures": {"identity": "x"}}, "it is not held to identity"),
    ],
)
def test_a_known_failure_of_no_check_is_refused(claims, words):
    with pytest.raises(UsageError, match=words):
        checks_for(subject(**claims))


def test_what_a_subject_does_not_claim_it_is_not_held_to():
    plain = Subject(
        "plain", model=f"{HERE}:net", counts_on_meta="its gates look at values", batch_independent="it sorts a batch"
    )
    left_out = set(CHECKS) - set(checks_for(plain))
    assert left_out == {"identity", "closed_form", "step_form", "refusals", "meta_counts", "batches"}


def test_what_needs_a_module_that_is_not_there_is_skipped_with_its_name():
    with pytest.raises(Skipped, match="no_such_module_here"):
        run_check("builds", subject(modules=("no_such_module_here",)))


def test_importing_the_library_brings_no_battery_and_the_battery_no_suite_and_a_sweep_no_distributions():
    program = (
        "import sys, bench; assert 'bench.testing' not in sys.modules; import bench.testing, bench.sweep.loop; assert "
        "not {'suites', 'scipy.stats', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
