"""What stands on a command line before any override is read: help, the version, a verb typed without its key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.config.verbs import JOBS
from bench.errors import UsageError, did_you_mean
from bench.version import __version__

#: Words that mean help, in any place.
_HELP = ("--help", "-h", "help")
#: Options of Hydra's that are left to it, and whether a value of their own follows.
_HYDRAS = {
    "--hydra-help": False, "--cfg": True, "-c": True, "--resolve": False, "--package": True, "-p": True,
    "--run": False, "-r": False, "--multirun": False, "-m": False, "--shell-completion": False, "-sc": False,
    "--config-path": True, "-cp": True, "--config-name": True, "-cn": True, "--config-dir": True, "-cd": True,
    "--experimental-rerun": True, "--info": False, "-i": False,
}  # fmt: skip
#: `--info` and the completion take a word that is optional.
_OPTIONAL = ("--info", "-i", "--shell-completion", "-sc")
#: What people ask for first, beside the verbs: an override and what it does.
_OFTEN = (
    ("suite=NAME", "which suite"),
    ("model=MODULE:NAME", "your own: a class, or a function that returns it with its inputs"),
    ("'model=\"nets:Net(width=4)\"'", "settings, in two pairs of quotes"),
    ("protocol=NAME", "glance, quick, standard, publish (surest); counts: no times"),
    ("'suite.methods=[\"tome(r=8)\"]'", "other methods; likewise suite.models, suite.batches, suite.dtypes"),
    ("grid=NAME", "another of the suite's grids"),
    ("device=cuda, device.threads=2", "where it runs"),
    ("retry=disturbed|failed|all", "measure these rows again"),
    ("paths.results=FOLDER", "where records are kept; what is there is not measured again"),
    ("tracking=off, report=off", "no mirror in MLflow, no page"),
)
#: Where what the help leaves out is told.
_MORE = (
    "Every value: bench suite=NAME --cfg job. A job for each of a,b,c: -m. More: job=list, docs/commands.md, and the "
    "tutorials in docs/tutorials."
)
#: Columns of the help where the terminal has them.
_WIDTH = 100


def offered(words: Sequence[str]) -> str | None:
    """What may stand where the cursor is, where a shell asks for it; else None. A Tab waits for nothing else.

    Args:
        words: of the command line, without the program's name.
    """
    if not (any(word.startswith("query=") for word in words) and {"-sc", "--shell-completion"} & set(words)):
        return None
    from bench.app.completion import offers

    point = os.environ.get("COMP_POINT", "")
    return "\n".join(offers(os.environ.get("COMP_LINE", ""), int(point) if point.isdecimal() else None))


def answer(words: Sequence[str], suites: Iterable[str]) -> str | None:
    """The text that a command line without a job asks for; None where there is a job to run.

    Args:
        words: of the command line, without the program's name.
        suites: names of the suites that there are.

    Raises:
        UsageError: a word that is neither an override nor an option, with what was probably meant.
    """
    if not words:
        return usage(suites, asked=False, width=_width())
    if any(word in _HELP for word in words):
        return usage(suites, asked=True, width=_width())
    if words[0] in ("--version", "version"):
        return f"Waterline {__version__}"
    value_follows = optional = False
    for word in words:
        if not value_follows and not (optional and not word.startswith("-")):
            _check(word, suites)
        value_follows, optional = _HYDRAS.get(word, False), word in _OPTIONAL
    return None


def _width() -> int:
    """Signs of a line of help: the terminal's, and no more than are easy to read."""
    import shutil

    return max(72, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


def _check(word: str, suites: Iterable[str]) -> None:
    """Raise UsageError for a word that is neither an override nor an option of Hydra's."""
    if ("=" in word and not word.startswith("--")) or word.startswith("~") or word in _HYDRAS:
        return
    option = word.lstrip("-")
    name, equals, value = option.partition("=")
    if word.startswith("-"):
        if word.partition("=")[0] in _HYDRAS:
            return
        meant = f"{name}={value}" if equals else f"{name}=..."
        raise UsageError(f'"{word}" is no option: everything is written key=value, here {meant}; see bench --help')
    known = sorted(suites)
    if word in JOBS:
        raise UsageError(f'"{word}" is a verb and stands behind its key; did you mean job={word}?')
    if word in known:
        raise UsageError(f'"{word}" is a suite and stands behind its key; did you mean suite={word}?')
    raise UsageError(
        f'"{word}" is no override: everything is written key=value, as in suite={known[0] if known else "NAME"} or '
        f"job=plan; {did_you_mean(word, [*JOBS, *known])}"
    )


def usage(suites: Iterable[str], *, asked: bool, width: int = _WIDTH) -> str:
    """A screen of help: what to type, the verbs, and what is often set.

    Args:
        suites: names of the suites that there are.
        asked: whether help was asked for; else it says what is missing.
        width: signs of a line.
    """
    import textwrap  # as what else only help needs: most command lines ask for none

    first = "" if asked else "Say what to measure: a suite, or a model of your own.\n\n"
    lines = [
        f"{first}Waterline {__version__}: what the operations promise, what the machine gives, where the rest is lost.",
        "",
        "  bench suite=vit_tokens                 measure a suite, write its page; ten to twelve minutes",
        "  bench suite=vit_tokens job=plan        what that would measure, and how long it takes",
        "  bench model=mymodels:Net               measure your own network",
        "",
        "Verbs (job=...):",
        *_columns(verbs().items(), left=14, width=width),
        "",
        "Often set (key=value):",
        *_columns(_OFTEN, left=33, width=width),
        "",
        *textwrap.wrap(f"Suites: {', '.join(sorted(suites))}", width),
        "",
        *textwrap.wrap(_MORE, width),
    ]
    return "\n".join(lines)


def verbs() -> dict[str, str]:
    """Every verb and the first line of its module's docstring, read without importing it."""
    import ast

    folder = _jobs_folder()
    found = {}
    for name in JOBS:
        file = folder / f"{'sweep' if name == 'run' else name}.py"
        said = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0]
        found[name] = said.partition(": ")[2].rstrip(".")
    return found


def _jobs_folder() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("bench.app.jobs")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _columns(rows: Iterable[tuple[str, str]], *, left: int, width: int) -> list[str]:
    """Rows of two columns; the second is wrapped under itself."""
    import textwrap

    lines = []
    for key, what in rows:
        wrapped = textwrap.wrap(what, width - left - 2) or [""]
        lines.append(f"  {key:<{left - 2}} {wrapped[0]}" if len(key) < left - 2 else f"  {key}")
        rest = wrapped[1:] if len(key) < left - 2 else wrapped
        lines += [" " * (left + 1) + line for line in rest]
    return lines
