"""`job=reproduce row=...`: measure a row again under its own protocol and judge every metric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import catalogue, judge
from bench.app.progress import ProgressBar
from bench.app.sources import find_row
from bench.case import BASELINE_METHOD, Case
from bench.compare import run_difference
from bench.comparison_text import reproduction_as_text
from bench.config import Config, Device, Paths, explain
from bench.errors import BenchError, UsageError
from bench.machine import environment, machine_key
from bench.plan import Group, Plan, check_device, file_digest, folder_digest
from bench.protocol import VERSION, Protocol
from bench.records import Record


def run(config: Config) -> int:
    """Measure, print the environment's difference and the verdicts; 0 agrees, 1 not, 4 inconclusive, 5 not comparable."""
    original, foreign = find_row(str(config.row), Path(config.paths.results))
    case = Case.from_dict(original["case"])
    check_trust(case, original, foreign=foreign, trusted=config.trust)
    check_device(case.device)
    check_files(case, config)
    adapted = as_recorded(config, original, case)
    group = group_of(case)
    made = plan_of(group, adapted)
    with ProgressBar() as bar:
        from bench.run import Runner

        sweep = Runner(adapted, made, bar).run({})
    new = next((record for record in sweep.records if record["case"]["method"] == case.method), None)
    if new is None:
        raise BenchError("the row was not measured: " + "; ".join(sweep.problems))
    verdicts = judge.judge(original, new)
    print(reproduction_as_text(verdicts, run_difference(original, new)))
    code = judge.exit_code(verdicts)
    words = {0: "AGREES", 1: "DISAGREES", 4: "INCONCLUSIVE", 5: "NOT COMPARABLE"}
    print(f"{words[code]}: {case.label}; the new record is in {adapted.paths.results}")
    return code


def check_trust(case: Case, record: Record, *, foreign: bool, trusted: bool) -> None:
    """Nothing, unless a record from elsewhere names code to run and nobody said to trust it.

    Raises:
        UsageError: it does, with how to say so.
    """
    elsewhere = foreign or record["machine_key"] != machine_key(environment(case.device))
    dotted = [name for name in (case.model, case.method) if ":" in name and not name.startswith("timm:")]
    if elsewhere and dotted and not trusted:
        raise UsageError(
            f'the record comes from elsewhere and names code to run ("{dotted[0]}"); read that code, and if you trust '
            "it run again with trust=true"
        )


def check_files(case: Case, config: Config) -> None:
    """Nothing, if the files that the row was measured with are named and are the same ones.

    Raises:
        UsageError: a file or folder is missing or another one, with its hash.
    """
    if case.checkpoint is not None:
        if config.checkpoint is None:
            raise UsageError(
                f"the row was measured with a weights file; name it with checkpoint=... (sha256 {case.checkpoint})"
            )
        if file_digest(Path(config.checkpoint)) != case.checkpoint:
            raise UsageError(f"checkpoint={config.checkpoint} is another file; the row's has sha256 {case.checkpoint}")
    if case.data is not None:
        if config.data.root is None:
            raise UsageError("the row was measured on a data folder; name it with task=imagefolder data.root=...")
        if folder_digest(Path(config.data.root)) != case.data:
            raise UsageError(f"data.root={config.data.root} holds other files than the row was measured on")


def as_recorded(config: Config, record: Record, case: Case) -> Config:
    """The configuration with the row's protocol and device, writing to a folder of its own."""
    told = record["protocol"]
    if told.get("version") != VERSION:
        raise UsageError(
            f"the row was measured by protocol {told.get('version')}, this is version {VERSION}: not comparable"
        )
    try:
        named = Protocol(name=told["name"], version=told["version"], **told["parameters"])
        device = Device(
            name=case.device, threads=case.threads, compile=case.compile, cuda_graphs=case.cuda_graphs,
            memory_format=case.memory_format,
        )  # fmt: skip
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
    """The case with its baseline."""
    return Group((case,) if case.is_baseline else (case.baseline, case))


def plan_of(group: Group, config: Config) -> Plan:
    """A plan of one group, its names looked up in our own catalogue; the source measured now names the cases."""
    known = catalogue.load()
    first = group.baseline
    models = {first.model: known.model(first.model)}
    methods = {case.method: known.method(case.method) for case in group.cases if case.method != BASELINE_METHOD}
    task = known.task(first.task) if first.task != "none" else None
    cases = tuple(_as_here(case, models, methods) for case in group.cases)
    return Plan(config.suite, (Group(cases),), models, methods, task)


def _as_here(case: Case, models: dict[str, Any], methods: dict[str, Any]) -> Case:
    """The case with the digests of the source that is run here."""
    parts = [models[case.model].digest, *([methods[case.method].digest] if case.method in methods else [])]
    return replace(case, subject_digest="+".join(parts))
