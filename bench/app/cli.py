"""The command line: Hydra composes, pydantic validates, a job runs; errors are told without a traceback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from bench.app import front_door
from bench.app.terminal import close_streams, open_streams, start_in_utf8, tell
from bench.config.paths import config_folder, extend_import_path
from bench.config.suite_files import Suites, find_suites
from bench.errors import BenchError, UsageError

INTERRUPTED = 130
#: An error in the program itself (EX_SOFTWARE of sysexits.h): no verdict of a gate.
CRASHED = 70
#: Standard output is full or gone for another reason than its reader leaving.
UNWRITTEN = 2
#: Exit codes, the one first that must not be hidden by another where `-m` runs several jobs.
SEVERITY = (INTERRUPTED, 1, CRASHED, 2, 3, 5, 4)


def register_suites() -> Suites:
    """The suites that there are; Hydra's `suite` group gets their names, to list, to complete and to override."""
    from hydra.core.config_store import ConfigStore

    suites = find_suites()
    group = ConfigStore.instance().repo.setdefault("suite", {})
    for name in suites:
        _check_name(name, suites.files[name])
        group[f"{name}.yaml"] = _suite_node()(name, suites)
    ConfigStore.instance().repo["task"] = _Tasks()
    return suites


class _Tasks(dict[str, Any]):
    """Hydra's nodes of the tasks in the catalogues, which are read when Hydra asks for one that is no file of ours."""

    @cached_property
    def _read(self) -> dict[str, Any]:
        from hydra.core.config_store import ConfigNode
        from omegaconf import OmegaConf

        from bench.config.catalogue import task_names

        files = {f"{name}.yaml": OmegaConf.create({"name": name}) for name in task_names()}
        return {
            file: ConfigNode(file, node, "task", None, "bench")
            for file, node in files.items()
            if file not in self._files
        }

    @cached_property
    def _files(self) -> frozenset[str]:
        return frozenset(path.name for path in (config_folder() / "task").glob("*.yaml"))

    def __contains__(self, key: object) -> bool:
        return key not in self._files and key in self._read

    def __getitem__(self, key: str) -> Any:
        return self._read[key]

    def keys(self) -> Any:
        """Names as of files, which is how Hydra keeps them."""
        return self._read.keys()


@cache
def _suite_node() -> Any:
    """The class of a suite in Hydra's store; made here, so that Hydra is imported by who starts it."""
    from hydra.core.config_store import ConfigNode

    class SuiteNode(ConfigNode):
        """The names of a suite's keys, read when Hydra asks, so that a start does not read every other suite."""

        def __init__(self, name: str, suites: Suites):
            self.name, self.group, self.package, self.provider = f"{name}.yaml", "suite", None, "bench"
            self.suite, self.suites = name, suites

        @cached_property
        def node(self) -> Any:  # type: ignore[override]
            from omegaconf import OmegaConf

            from bench.config.suites import skeleton

            return OmegaConf.create(skeleton(self.suites[self.suite]))

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
            f'{file}: suite=... on the command line cannot name a suite "{name}": give suite.yaml a name of letters, '
            f"digits, _ and -, with a letter in it, such as name: suite_{re.sub('[^A-Za-z0-9_-]', '_', name)}"
        )


def _report(error: BenchError) -> int:
    tell(str(error))
    return error.exit_code


def _crash(error: Exception, *, show: bool) -> int:
    """Say in one line what went wrong in the program itself and where the traceback is; the code for that."""
    import tempfile
    import traceback

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
    tell(f"an error in bench itself: {what}; {where}")
    return CRASHED


def _task(codes: list[int], suites: Mapping[str, Any], *, show: bool) -> Callable[[Any], None]:
    """The function Hydra calls with the composed tree; appends the job's exit code to `codes`.

    An interrupted job ends the whole command line, or Hydra's `-m` would begin the next one.
    """

    def run(tree: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        from bench.app.jobs import run_job
        from bench.config.schema import validate
        from bench.config.suites import filled

        try:
            plain: Any = OmegaConf.to_container(tree, resolve=True)
            codes.append(run_job(validate(filled(plain, suites, HydraConfig.get().runtime.choices.get("suite")))))
        except BenchError as error:
            codes.append(_report(error))
        except OmegaConfBaseException as error:
            codes.append(_report(_unresolved(error)))
        except Exception as error:
            codes.append(_crash(error, show=show))
        if codes[-1] == INTERRUPTED:
            raise KeyboardInterrupt

    return run


def _unresolved(error: Exception) -> UsageError:
    """What is wrong with a value of the command line that names another value which is not there."""
    what = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(f"{getattr(error, 'full_key', None) or 'a value'} on the command line cannot be resolved: {what}")


def worst(codes: Sequence[int]) -> int:
    """The exit code of several jobs: the one that must not be hidden; an unknown one counts as a crash."""
    return min(codes, key=_rank, default=0)


def _rank(code: int) -> int:
    if code == 0:
        return len(SEVERITY)
    return SEVERITY.index(code if code in SEVERITY else CRASHED)


def main() -> None:
    """Run the command line and exit with the job's code: 0, 1, 2, 3, 4, 5, 70 or 130 (see docs/commands.md)."""
    start_in_utf8()
    sinks = open_streams()
    _end_as_by_ctrl_c()
    show = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise instead of printing: we say it in our own words
    codes: list[int] = []
    try:
        extend_import_path()
        said = front_door.offered(sys.argv[1:])
        if said is None:
            said = front_door.answer(sys.argv[1:], find_suites())
        if said is None:
            suites = register_suites()
            _compose(suites, _task(codes, suites, show=show))
        else:
            print(said)
    except BenchError as error:
        codes.append(_report(error))
    except KeyboardInterrupt:
        codes.append(INTERRUPTED)
    except Exception as error:
        codes.append(_crash(error, show=show))
    code = worst(codes)
    sys.exit(code if close_streams(sinks) or code else UNWRITTEN)


def _end_as_by_ctrl_c() -> None:
    """Have a request to end (`kill`, a closed terminal) keep what was measured and end every child, as Ctrl-C does.

    What the one who started us has ignored, as `nohup` does, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def _compose(suites: Mapping[str, Any], task: Callable[[Any], None]) -> None:
    """Have Hydra compose the configuration and call the task with it, once per job of a multirun.

    Raises:
        UsageError: Hydra, whose own errors are of many kinds, makes nothing of the command line. The task raises none.
    """
    import hydra
    from omegaconf import OmegaConf

    with contextlib.ExitStack() as ending:
        own_folder = cache(partial(_own_folder, ending))  # one for all jobs of `-m`
        OmegaConf.register_new_resolver("bench.own_folder", own_folder, replace=True)
        try:
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(task)()
        except BenchError:
            raise  # the suite that was chosen is none
        except Exception as error:
            from bench.app.hydra_errors import explain_hydra

            raise UsageError(explain_hydra(error, suites, sys.argv[1:])) from error


def _own_folder(ending: contextlib.ExitStack) -> str:
    """A folder for what Hydra writes of a multirun, which is no record of ours: gone with this process."""
    from bench.worker.scratch import Scratch

    scratch = Scratch()
    ending.callback(scratch.remove)
    return str(scratch.folder)
