"""The command line: wrong input is refused at once, says what, where and what to do, and measures nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from bench import api
from bench.app import cli
from bench.app.hydra_errors import explain_hydra
from bench.config import catalogue
from bench.config.paths import config_folder
from bench.config.protocol import Protocol
from bench.config.schema import all_keys, validate
from bench.config.suite_files import find_suites
from bench.config.suites import filled
from bench.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def suites():
    return cli.register_suites()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "weights.pth").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)


def composed(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        tree = compose("config", list(overrides))
    return filled(OmegaConf.to_container(tree, resolve=True), find_suites())


def refusal(suites, *overrides):
    """What the command line would say of these overrides, without starting it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from bench.plan import plan

    try:
        plan.make(validate(composed(*overrides)), catalogue.load())
    except UsageError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        return explain_hydra(error, suites)
    raise AssertionError(f"{overrides} were accepted")


WRONG = [
    (["suite=vit_token"], 'suite "vit_token" does not exist; did you mean "vit_tokens"?'),
    (["protocol=quik"], 'protocol "quik" does not exist; did you mean "quick"?'),
    (["protocl=quick"], 'unknown key "protocl"; did you mean "protocol"?'),
    (["protocol.latency.invocatons=3"], 'did you mean "protocol.latency.invocations"?'),
    (["+protocol.latency.invocatons=3"], 'did you mean "invocations"?'),
    (["+measure.itrs=5"], 'unknown key "measure"'),
    (["+suite.modles=[deit_tiny]"], 'did you mean "models"?'),
    (["protocol.latency.invocations=x"], "protocol.latency.invocations='x' is not valid"),
    (["protocol.latency.invocations=0"], "protocol.latency.invocations=0 is not valid"),
    (["protocol.latency.max_invocations=1"], "max_invocations=1 clashes with invocations=3"),
    (["suite.models=[deit_smal]"], 'model "deit_smal" is not in the catalogue; did you mean "deit_small"?'),
    (["suite.methods=[tomee]"], 'method "tomee" is not in the catalogue; did you mean "tome"?'),
    (["suite.methods=['evit(keep_rat=0.7)']"], 'has no setting "keep_rat"; did you mean "keep_rate"?'),
    (["suite.methods=['evit(keep_rate=7)']"], "setting keep_rate=7 is not valid"),
    (["suite.methods=['evit(keep_rate=0.7']"], "a closing bracket is missing"),
    (["suite.batches=[0]"], "a batch is 1 or more"),
    (["suite.dtypes=[fp31]"], 'did you mean "fp32"?'),
    (["grid=ful"], 'has no grid "ful"; did you mean "full"?'),
    (["job=pln"], 'job "pln" does not exist; did you mean "plan"?'),
    (["job=reproduce"], "job=reproduce needs row="),
    (["job=compare", "a=results"], "job=compare needs both a="),
    (["task=imagefolder"], "task=imagefolder clashes with data.root=null"),
    (["task=imagefolder", "data.root=/no/such/folder"], "there is no file or folder /no/such/folder"),
    (["data.root=."], "add task=imagefolder"),
    (["task=textfile"], "task=textfile clashes with data.root=null"),
    (["checkpoint=/no/such/file.pth"], "there is no file /no/such/file.pth"),
    (["suite.models=[digits_tiny]", "checkpoint=weights.pth"], "clashes with task=digits, which trains the weights"),
    (["device.cuda_graphs=true"], "device.cuda_graphs=true clashes with device.name=cpu"),
    (
        ["device.cuda_graphs=true", "device.name=cuda", "device.compile=max-autotune"],
        "cuda_graphs=true clashes with device.compile=max-autotune",
    ),
    (["protocol.latency.l2=cold"], "protocol.latency.l2=cold clashes with device.name=cpu"),
    (["suite.dtypes=[fp32,tf32]"], "suite.dtypes=[tf32] clashes with device.name=cpu"),
    (["protocol.energy.backend=external"], "backend=external clashes with protocol.energy.csv=null"),
    (["protocol.energy.backend=estimate"], "backend=estimate clashes with protocol.energy.watts=null"),
    (["protocol.energy.csv=meter.csv"], "protocol.energy.csv=meter.csv clashes with protocol.energy.backend=auto"),
    (["protocol.energy.watts=65"], "protocol.energy.watts=65 clashes with protocol.energy.backend=auto"),
    (
        ["protocol.energy.backend=external", "protocol.energy.csv=/no/such/meter.csv"],
        "there is no file /no/such/meter.csv",
    ),
    (["protocol.energy.backend=estimate", "protocol.energy.watts=-5"], "protocol.energy.watts=-5 is not valid"),
    (["device.threads=0"], "threads is 1 or more"),
    (["device.name=tpu"], "device.name='tpu' is not valid"),
    (["tracking.uri=ftp://host"], "is no MLflow address"),
    (["paths.results=s3://lab/results"], "'s3://lab/results' is no folder of this machine"),
    (["paths.results=[results,memory://results]"], "Name a folder, and copy it there"),
    (["paths.site=gs://lab/site"], "'gs://lab/site' is no folder of this machine"),
    (["model=no_such_package.net:Net"], 'module "no_such_package.net"'),
    (["model=no_such_name"], 'model "no_such_name" is not in the catalogue'),
    (["model=mymodels.mlp"], "has a colon before its last name: mymodels:mlp"),
    (["retry_contaminated=true"], 'did you mean "retry"?'),
    (["device.threads=many"], "device.threads: threads is 1 or more, or auto"),
    (["suite.methods=[tome(r=4)]"], "quote a spec that has settings"),
    (["seed=-1"], "seed=-1 is not valid"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[" ".join(item[0]) for item in WRONG])
def test_wrong_input_says_what_where_and_what_to_do(suites, overrides, message):
    assert message in refusal(suites, *overrides)


def test_a_device_that_is_not_there_is_refused_before_torch(suites):
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        assert "use device=cpu" in refusal(suites, "device=cuda")
    else:
        assert "is not there" in refusal(suites, "device=cuda", "device.name=cuda:99")


def test_every_key_of_the_configuration_is_an_override(suites):
    tree = composed("protocol=v2/quick")  # which has all that version 1 has

    def has(key):
        node = tree
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    assert [key for key in all_keys() if not has(key)] == []


def test_the_library_and_the_command_line_mean_the_same_protocols(suites):
    for name in ("quick", "standard", "publish", "v2/glance", "v2/quick", "v2/standard"):
        assert api.protocol_named(name) == validate(composed(f"protocol={name}")).protocol
    assert Protocol().hash == api.protocol_named("standard").hash


def test_the_name_of_a_protocol_does_not_change_its_hash_but_any_number_does():
    base = Protocol()
    assert Protocol(name="mine").hash == base.hash
    assert Protocol(latency={"samples": 99}).hash != base.hash


def run(*words, **environment):
    command = [sys.executable, "-m", "bench", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)


def test_usage_errors_exit_with_2_on_one_line_without_traceback():
    done = run("suite=vit_token")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('bench: suite "vit_token" does not exist') and done.stderr.count("\n") == 1


def test_a_typo_is_answered_without_importing_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    (tmp_path / "mlflow.py").write_text("raise SystemExit('mlflow was imported')\n")
    done = run("suite.methods=['evit(keep_rat=0.7)']", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2 and "keep_rate" in done.stderr


def test_a_suite_file_with_a_misspelt_key_is_named(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "suite.yaml").write_text("name: bad\ngrids: {default: [{modles: [deit_tiny], methods: [none]}]}\n")
    done = run("suite=bad", BENCH_SUITES=str(folder))
    assert done.returncode == 2 and 'did you mean "models"?' in done.stderr


def test_a_broken_suite_file_names_file_and_line(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "suite.yaml").write_text("name: bad\ngrids: [\n")
    done = run("suite=bad", BENCH_SUITES=str(folder))
    assert done.returncode == 2 and "suite.yaml, line" in done.stderr


def test_a_suite_folder_that_is_not_there_is_named():
    done = run(BENCH_SUITES="/no/such/suites")
    assert done.returncode == 2 and "/no/such/suites" in done.stderr


def test_users_suites_and_models_need_no_change_to_ours(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "nets.py").write_text(
        "def net(*, width: int = 4, resolution: int = 16): ...\ndef shrink(model, *, by: int = 2): ...\n"
    )
    (folder / "catalogue.yaml").write_text(
        'models: {theirnet: "theirs.nets:net"}\nmethods: {shrink: "theirs.nets:shrink"}\n'
    )
    (folder / "suite.yaml").write_text(
        "name: theirs\ngrids: {default: [{models: [theirnet], methods: [none, 'shrink(by=3)']}]}\n"
    )
    done = run("suite=theirs", "suite.methods=['shrink(bye=3)']", BENCH_SUITES=str(folder))
    assert done.returncode == 2 and 'did you mean "by"?' in done.stderr


def test_plan_shows_cases_and_an_estimate_and_measures_nothing(tmp_path):
    done = run("job=plan", "suite.models=[deit_tiny]", "suite.methods=['tome(r=13)']")
    assert done.returncode == 0, done.stderr
    assert "tome(r=13)" in done.stdout and "an estimate" in done.stdout
    assert not (tmp_path / "results" / "records").exists()


# -- how it ends ------------------------------------------------------------------------------------------------

SCRIPTED = """
import sys
from bench.app import jobs
def run_job(config):
    print("began", config.seed, flush=True)
    {body}
jobs.run_job = run_job
sys.argv = ["bench", *sys.argv[1:]]
from bench.app.cli import main
main()
"""


def scripted(body, *words, **environment):
    """The command line with a job of ours in the place of all."""
    command = [sys.executable, "-c", SCRIPTED.format(body=body), *(words or ("seed=0",))]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=120)


@pytest.mark.parametrize(
    "body",
    [
        "raise KeyboardInterrupt",
        "return 130",
        "from bench.sweep.attempts import Interrupted; raise Interrupted('stopped')",
    ],
)
def test_ctrl_c_ends_all_jobs_of_a_multirun_with_130(body):
    done = scripted(body, "-m", "seed=1,2,3")
    assert (done.returncode, done.stdout) == (130, "began 1\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_every_job_of_a_multirun_runs_and_a_regression_is_not_hidden_by_failed_rows():
    done = scripted("return {1: 3, 2: 1, 3: 4}[config.seed]", "-m", "seed=1,2,3")
    assert (done.returncode, done.stdout) == (1, "began 1\nbegan 2\nbegan 3\n"), done.stderr


@pytest.mark.parametrize(("codes", "code"), [
    ([], 0), ([0, 0], 0), ([0, 3], 3), ([3, 1], 1), ([1, 2], 1), ([4, 3, 5], 3), ([4, 5], 5), ([1, 70, 2], 1), ([2, 70],
    70), ([1, 130], 130), ([0, 9], 9), ([-15, 3], -15),
])  # fmt: skip
def test_the_exit_code_of_several_jobs_is_the_one_that_must_not_be_hidden(codes, code):
    assert cli.worst(codes) == code


def test_an_error_in_the_program_is_no_regression_and_says_where_its_traceback_is(tmp_path):
    done = scripted("raise ZeroDivisionError('a\\nb')", TMPDIR=str(tmp_path))
    assert done.returncode == 70 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    (log,) = tmp_path.glob("bench-*.log")
    assert str(log) in done.stderr and "ZeroDivisionError: a b" in done.stderr
    assert "Traceback" in log.read_text() and "run_job" in log.read_text()
    shown = scripted("raise ZeroDivisionError('a')", TMPDIR=str(tmp_path), HYDRA_FULL_ERROR="1")
    assert shown.returncode == 70 and "Traceback" in shown.stderr


def test_an_error_in_one_job_of_a_multirun_does_not_stop_the_others(tmp_path):
    done = scripted("return 1 // (config.seed - 1) and 0", "-m", "seed=1,2", TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (70, "began 1\nbegan 2\n"), done.stderr


def test_the_page_of_commands_tells_every_exit_code():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = text[text.index("Exit codes:") :]
    assert all(f" {code}" in listed for code in (0, *cli.SEVERITY))


@pytest.fixture
def two_suites(tmp_path, monkeypatch):
    """A whole suite, and one that is broken after its name."""
    for name, text in (("whole", "grids: {default: [{models: [deit_tiny], methods: [none]}]}"), ("broken", "grids: [")):
        (tmp_path / "suites" / name).mkdir(parents=True)
        (tmp_path / "suites" / name / "suite.yaml").write_text(f"name: {name}_suite\n{text}\n")
    monkeypatch.setenv("BENCH_SUITES", str(tmp_path / "suites"))
    return cli.register_suites()


def test_a_suite_is_read_when_it_is_asked_for_and_a_broken_one_stops_no_other(two_suites):
    assert {"whole_suite", "broken_suite"} <= set(two_suites)
    assert list(validate(composed("suite=whole_suite")).suite.grids) == ["default"]
    with pytest.raises(UsageError, match=r"broken/suite.yaml, line \d: not valid YAML"):
        composed("suite=broken_suite")


def test_a_start_reads_no_suite_but_the_one_it_runs(two_suites, monkeypatch):
    from bench.config import yaml_file

    read = []
    monkeypatch.setattr(
        yaml_file, "read_yaml", lambda file, whole=yaml_file.read_yaml: read.append(file.parent.name) or whole(file)
    )
    cli.register_suites()
    monkeypatch.setattr(catalogue, "read_yaml", lambda file: read.append(file.name) or {})
    cli.register_suites()
    assert read == []
    composed("suite=whole_suite", "task=digits")
    assert set(read) == {"whole"}


def test_every_task_of_a_catalogue_can_be_asked_for_by_name_also_a_users_own(tmp_path, monkeypatch):
    """A task is one line in a catalogue, and no further file; a broken catalogue takes no task from the others."""
    for name, text in (("own", 'tasks: {mine: "nets:Task", "../odd": "nets:Task"}'), ("broken", "tasks: [")):
        (tmp_path / "suites" / name).mkdir(parents=True)
        (tmp_path / "suites" / name / "catalogue.yaml").write_text(text + "\n")
    monkeypatch.setenv("BENCH_SUITES", str(tmp_path / "suites"))
    suites = cli.register_suites()
    names = catalogue.task_names()
    assert {"mine", "additions", "volumes", "digits_resized"} <= set(names) and "../odd" not in names
    for name in ("mine", "additions", "volumes", "digits_resized"):  # any other is made by the same two lines
        assert validate(composed(f"task={name}")).task.name == name
    assert 'task "mines" does not exist; did you mean "mine' in refusal(suites, "task=mines")
