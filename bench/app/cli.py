"""The command line: Hydra composes, pydantic validates, a job runs; errors are told without a traceback."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bench.config.paths import config_folder, extend_import_path, suite_folders
from bench.errors import BenchError, UsageError, did_you_mean

INTERRUPTED = 130
#: An error in the program itself (EX_SOFTWARE of sysexits.h): no verdict of a gate.
CRASHED = 70
#: Exit codes, the one first that must not be hidden by another where `-m` runs several jobs.
SEVERITY = (INTERRUPTED, 1, CRASHED, 2, 3, 5, 4)


def register_suites() -> list[str]:
    """Put every `suite.yaml` into Hydra's `suite` group; the names, which Hydra then lists and completes.

    Of a suite only its name is read here; the rest once it is asked for.
    """
    from hydra.core.config_store import ConfigStore

    from bench.config.yaml_file import first_text

    store = ConfigStore.instance()
    group = store.repo.setdefault("suite", {})
    names: dict[str, str] = {}
    for folder in suite_folders():
        file = folder / "suite.yaml"
        if not file.is_file():
            continue
        name = first_text(file, "name") or folder.name
        _check_name(name, file)
        if name in names:
            raise UsageError(f'{file}: a suite named "{name}" is already defined in {names[name]}; rename one')
        names[name] = str(file)
        group[f"{name}.yaml"] = _suite_node()(name, file)
    return sorted(names)


@cache
def _suite_node() -> Any:
    """The class of a suite in Hydra's store; made here, so that Hydra is imported by who starts it."""
    from hydra.core.config_store import ConfigNode

    class SuiteNode(ConfigNode):
        """A suite's file, read when Hydra takes it: with twenty suites a start would read nineteen for nothing."""

        def __init__(self, name: str, file: Path):
            self.name, self.group, self.package, self.provider = f"{name}.yaml", "suite", None, str(file)
            self.suite, self.file = name, file

        @cached_property
        def node(self) -> Any:  # type: ignore[override]
            from omegaconf import OmegaConf

            from bench.config.axes import OVERRIDES
            from bench.config.yaml_file import read_yaml

            return OmegaConf.create({**dict.fromkeys(OVERRIDES), **read_yaml(self.file), "name": self.suite})

    return SuiteNode


def _check_name(name: str, file: Path) -> None:
    """Raise UsageError if the command line would read a suite's name as something else than text."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and name.lower() not in ("true", "false", "null", "nan", "inf"):
        return  # the parser takes a tenth of a second to start
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        read = OverridesParser.create().parse_override(f"suite={name}").value()
    except HydraException:
        read = None
    if not isinstance(read, str):
        raise UsageError(
            f'{file}: suite=... on the command line cannot name a suite "{name}": give suite.yaml a name of letters, digits, _ '
            f"and -, with a letter in it, such as name: suite_{re.sub('[^A-Za-z0-9_-]', '_', name)}"
        )


def _groups(suites: list[str]) -> dict[str, list[str]]:
    folder = config_folder()
    found = {path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in folder.iterdir() if path.is_dir()}
    return {**found, "suite": suites}


def _known_keys() -> list[str]:
    from bench.config.schema import all_keys

    return all_keys()


def explain_hydra(error: Exception, suites: list[str]) -> str:
    """What Hydra complained about in our words, with the nearest right name."""
    text = str(error)
    groups = _groups(suites)
    missing = re.search(r"Could not find '([\w/]+)/([^']+)'", text)
    if missing and missing[1] in groups:
        return f'{missing[1]} "{missing[2]}" does not exist; {did_you_mean(missing[2], groups[missing[1]])}'
    key = re.search(r"Could not override '([^']+)'", text) or re.search(r"Key '([^']+)' is not in struct", text)
    if key:
        return f'unknown key "{key[1]}"; {did_you_mean(key[1], _known_keys())}'
    group = re.search(r"No match in the defaults list.*?'([^']+)'", text, re.S)
    if group:
        return f'unknown key "{group[1]}"; {did_you_mean(group[1].split("=")[0], _known_keys())}'
    function = re.search(r"Unknown function '(\w+)'", text)
    if function:
        return f"quote a spec that has settings, or Hydra takes it for a function: 'suite.methods=[\"{function[1]}(...)\"]'"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (
        "the command line cannot be read: "
        + " ".join(lines[:3])
        + "; put an override that holds ( ) = , # ~ or a blank in "
        "quotes twice, as in 'model=\"nets:Net(width=4)\"'"
    )


def _report(error: BenchError) -> int:
    print(f"bench: {error}", file=sys.stderr)
    return error.exit_code


def _crash(error: Exception, *, show: bool) -> int:
    """Say in one line what went wrong in the program itself and where the traceback is; the code for that."""
    trace = "".join(traceback.format_exception(error))
    if show:
        print(trace, file=sys.stderr, end="")
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(trace)
        where = f"the traceback is in {file.name}"
    except OSError as full:
        where = f"the traceback cannot be kept ({full.strerror}); set HYDRA_FULL_ERROR=1 to see it"
    print(f"bench: an error in bench itself: {what}; {where}", file=sys.stderr)
    return CRASHED


def _task(codes: list[int], *, show: bool) -> Callable[[Any], None]:
    """The function Hydra calls with the composed tree; appends the job's exit code to `codes`.

    An interrupted job ends the whole command line, or Hydra's `-m` would begin the next one.
    """

    def run(tree: Any) -> None:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        from bench.app.jobs import run_job
        from bench.config.schema import validate

        try:
            codes.append(run_job(validate(OmegaConf.to_container(tree, resolve=True))))  # type: ignore[arg-type]
        except BenchError as error:
            codes.append(_report(error))
        except OmegaConfBaseException:
            raise  # `explain_hydra` has words for it
        except Exception as error:
            codes.append(_crash(error, show=show))
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    return run


def worst(codes: Sequence[int]) -> int:
    """The exit code of several jobs: the one that must not be hidden; an unknown one counts as a crash."""
    return min(codes, key=_rank, default=0)


def _rank(code: int) -> int:
    if code == 0:
        return len(SEVERITY)
    return SEVERITY.index(code if code in SEVERITY else CRASHED)


def _print_what_there_is() -> None:
    """Let a terminal or a file whose encoding lacks a character get a stand-in for it instead of ending the job."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main() -> None:
    """Run the command line and exit with the job's code: 0, 1, 2, 3, 4, 5, 70 or 130 (see docs/commands.md)."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _print_what_there_is()
    show = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise instead of printing: we say it in our own words
    codes: list[int] = []
    suites: list[str] = []
    try:
        extend_import_path()
        suites = register_suites()
        task = _task(codes, show=show)
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(task)()
    except BenchError as error:
        codes.append(_report(error))
    except (HydraException, OmegaConfBaseException) as error:
        codes.append(_report(UsageError(explain_hydra(error, suites))))
    except KeyboardInterrupt:
        codes.append(INTERRUPTED)
    except Exception as error:
        codes.append(_crash(error, show=show))
    sys.exit(worst(codes))
