"""`job=reproduce row=...`: measure a row again under its own protocol and judge every metric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench.analysis import judge
from bench.analysis.compare import run_difference
from bench.analysis.comparison_text import differences_as_text, reproduction_as_text
from bench.app.progress import GroupLines, ProgressBar
from bench.app.sources import find_row, measured_here
from bench.canonical import BASELINE_METHOD
from bench.config import catalogue
from bench.config.protocol import VERSIONS, Protocol
from bench.config.schema import Config, Device, Paths, explain
from bench.errors import BenchError, UsageError
from bench.foreign_text import escape_controls
from bench.host.code import code_version
from bench.host.environment import environment
from bench.host.hostwatch import LIMITS
from bench.host.identity import machine_key
from bench.plan.case import Case
from bench.plan.plan import Group, Plan, check_device, data_digest, file_digest
from bench.short_names import short_name
from bench.store.records import Record

if TYPE_CHECKING:
    from bench.sweep.loop import Driver

#: Models by this prefix are names of a library that is installed anyway, not code that the record brings to mind.
LIBRARY = "timm:"


def run(config: Config) -> int:
    """Print what differs, measure, print the verdicts; 0 agrees, 1 does not, 4 inconclusive, 5 not comparable."""
    original, foreign = find_row(str(config.row), Path(config.paths.results))
    case = Case.from_dict(original["case"])
    own = not foreign and measured_here(original, Path(config.paths.results))
    check_trust(case, original, own=own, trusted=config.trust)
    check_device(case.device)
    check_files(case, config)
    adapted = as_recorded(config, original, case)
    made = plan_of(group_of(case), adapted)
    from bench.sweep.loop import Driver  # brings scipy: a wrong name is answered before that

    lines = GroupLines()
    bar = ProgressBar(lines)
    driver = Driver(adapted, made, [bar, lines])
    again = made.cases[-1]
    print(differences_as_text(run_difference(original, _head(driver, again))), flush=True)
    with lines, bar:
        sweep = driver.run({})
    new = next((record for record in reversed(sweep.records) if record["case_key"] == again.key), None)
    if new is None:
        raise BenchError("the row was not measured: " + "; ".join(sweep.problems))
    verdicts = judge.judge(original, new, own=own)
    print(reproduction_as_text(verdicts))
    busier = busier_now(original, new)
    if busier:
        print(busier)
    code = judge.exit_code(verdicts)
    words = {0: "AGREES", 1: "DISAGREES", 4: "INCONCLUSIVE", 5: "NOT COMPARABLE"}
    print(f"{words[code]}: {escape_controls(short_name(case.label))}; the new record is in {adapted.paths.results}")
    return code


def busier_now(original: Record, new: Record) -> str:
    """What to say where other programs used more of the processor now than then; empty where they did not."""
    then, now = (_cores_of_others(record) for record in (original, new))
    if then is None or now is None or now - then <= LIMITS.busy_cores:
        return ""
    return (
        f"the machine is busier now: other programs used {now:.2g} cores, and {then:.2g} then; a difference of times "
        "may come from that, so repeat it on a quiet machine"
    )


def _cores_of_others(record: Record) -> float | None:
    """What other programs used of the processor in the middle one of the processes; None where it was not watched."""
    lines = (record.get("timing") or {}).get("invocations") or []
    seen = [(line.get("host") or {}).get("other_cores") for line in lines]
    known = [float(cores) for cores in seen if cores is not None]
    return median(known) if known else None


def _head(driver: Driver, case: Case) -> Record:
    """What the new record of a case will say of its circumstances, before anything is measured."""
    return {
        "case": case.as_dict(),
        "protocol": driver.config.protocol.as_record(),
        "environment": driver.environment,
        "code": code_version(),
    }


def check_trust(case: Case, record: Record, *, own: bool, trusted: bool) -> None:
    """Raise UsageError if a record from elsewhere names code to run, unless the user said to trust it.

    Args:
        case: the record's.
        record: what is to be measured again.
        own: whether it was measured into the user's own results folder (`bench.app.sources.measured_here`).
        trusted: whether the user said so.

    Raises:
        UsageError: it does; the message tells how to say so.
    """
    dotted = [name for side in (case, case.baseline) for name in _code_named(side)]
    if not dotted or trusted:
        return
    if not own or record["machine_key"] != machine_key(environment(case.device)):
        raise UsageError(
            f'the record comes from elsewhere and names code to run ("{escape_controls(dotted[0])}"); read that code, '
            "and if you trust it run again with trust=true"
        )


def _code_named(case: Case) -> list[str]:
    """The names of a case that are code to import: dotted paths of a model, method, task, workload or backend."""
    subjects = [
        name for name in (str(case.model).removeprefix(LIBRARY), str(case.method), str(case.task)) if ":" in name
    ]
    return subjects + [str(name) for name in (case.workload, case.backend) if "." in str(name)]


def check_files(case: Case, config: Config) -> None:
    """Raise UsageError unless the files that the row was measured with are named and are the same ones.

    Raises:
        UsageError: a file or folder is missing, or another one (with its hash), or named though the row had none.
    """
    if case.checkpoint is None and config.checkpoint is not None:
        raise UsageError(
            f"checkpoint={config.checkpoint} clashes with the row, which was measured without a weights file: "
            "leave it out"
        )
    if case.data is None and config.data.root is not None:
        raise UsageError(
            f"data.root={config.data.root} clashes with the row, which was measured without data of the user's: "
            f"leave it and task={config.task_name} out"
        )
    if case.checkpoint is not None:
        if config.checkpoint is None:
            raise UsageError(
                f"the row was measured with a weights file; name it with checkpoint=... (sha256 {case.checkpoint})"
            )
        if file_digest(Path(config.checkpoint)) != case.checkpoint:
            raise UsageError(f"checkpoint={config.checkpoint} is another file; the row's has sha256 {case.checkpoint}")
    if case.data is not None:
        if config.data.root is None:
            raise UsageError(f"the row was measured on data of the user's; name it with task={case.task} data.root=...")
        if data_digest(Path(config.data.root)) != case.data:
            raise UsageError(f"data.root={config.data.root} holds other files than the row was measured on")


def as_recorded(config: Config, record: Record, case: Case) -> Config:
    """The configuration with the row's protocol and device, writing to a folder of its own."""
    stored = record["protocol"]
    if stored.get("version") not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise UsageError(
            f"the row was measured by protocol {stored.get('version')}, and here are versions {known}: not comparable"
        )
    try:
        named = Protocol(name=stored["name"], version=stored["version"], **stored["parameters"])
        device = Device(
            name=case.device,
            threads=case.threads,
            compile=case.compile,
            cuda_graphs=case.cuda_graphs,
            memory_format=case.memory_format,
        )
    except (ValidationError, KeyError, TypeError) as error:
        what = explain(error) if isinstance(error, ValidationError) else repr(error)
        raise UsageError(f"the row's protocol or device is none that this version knows: {what}") from error
    protocol = _here(named, config.protocol)
    base = Path(config.paths.results) / "reproductions" / case.key
    number = 1 + sum(path.is_dir() for path in base.glob("*"))
    paths = Paths(results=str(base / str(number)), site=config.paths.site, cache=config.paths.cache)
    return config.model_copy(update={"protocol": protocol, "device": device, "paths": paths, "seed": case.seed})


def _here(protocol: Protocol, ours: Protocol) -> Protocol:
    """A row's protocol with the places of this machine: a record says that a meter's log was read, not where it lay."""
    energy = protocol.energy.model_copy(update={"csv": ours.energy.csv})
    return protocol.model_copy(update={"energy": energy})


def group_of(case: Case) -> Group:
    """The case, last, after the one that it is compared with."""
    return Group((case,) if case.is_baseline else (case.baseline, case))


def plan_of(group: Group, config: Config) -> Plan:
    """A plan of one group, its names looked up in our own catalogue; the source measured now names the cases."""
    known = catalogue.load()
    first = group.baseline
    models = {case.model: known.model(case.model) for case in group.cases}
    methods = {case.method: known.method(case.method) for case in group.cases if case.method != BASELINE_METHOD}
    tasks = {first.task: known.task(first.task)} if first.task != "none" else {}
    cases = tuple(_as_here(case, models, methods) for case in group.cases)
    return Plan(config.suite, (Group(cases),), models, methods, tasks)


def _as_here(case: Case, models: dict[str, Any], methods: dict[str, Any]) -> Case:
    """The case with the digests of the source that is run here, its other side's included."""
    against = _digest(case.baseline, models, methods) if case.against_digest else ""
    return replace(case, subject_digest=_digest(case, models, methods), against_digest=against)


def _digest(case: Case, models: dict[str, Any], methods: dict[str, Any]) -> str:
    return "+".join([models[case.model].digest, *([methods[case.method].digest] if case.method in methods else [])])
