"""Every command line that the pages show is what a shell, Hydra and our own checks take: each is run up to its job."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from bench.app import cli, jobs
from bench.config.overrides import as_word
from bench.config.schema import all_keys

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "suites").glob("*/README.md")),
]
#: What stands for a user's own word.
PLACEHOLDERS = {
    "key=value ...": "seed=1",
    "checkpoint=...": "checkpoint=weights.safetensors",
    "energy.csv=...": "energy.csv=meter.csv",
    "<key>": "2f6c41d0",
    "<zip>": "results.bundle.zip",
    "<...>": "results",
    "<results>": "results",
    "<n>": "3",
    "suite=NAME": "suite=vit_tokens",
    "suite=mysuite": "suite=vit_tokens",
    "checkpoint=FILE": "checkpoint=weights.safetensors",
    "protocol=NAME": "protocol=quick",
    "grid=NAME": "grid=default",
    "task=...": "task=none",
    "batches=[...]": "batches=[1,8]",
    "...": "results",
}
STARTS = ("bench ", "python -m ", "nox ", "eval ")


def placed(text):
    """The text with every placeholder filled in."""
    for sign, word in PLACEHOLDERS.items():
        text = text.replace(sign, word)
    return text


def lines_of(page):
    """The command lines in a page's code blocks and in its running text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    for line in (line for block in blocks for line in block.splitlines()):
        command = re.sub(r"^\s*- run: ", "", line).strip()
        if command.startswith(STARTS) and not command.endswith(("\\", "; code=$?")):
            yield command
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)):
        if code.startswith(STARTS):
            yield code


def overrides_of(page):
    """Single overrides that a page names in its running text, such as `protocol=standard`, with a value that is one.

    A page of what was found to be wrong names overrides that are refused.
    """
    if page.name == "fuzzing.md":
        return
    keys = {*all_keys(), *("suite", "protocol", "device", "executor", "tracking", "report", "task")}
    for code in re.findall(r"`('?[a-z][\w.]*=[^`\n]+)`", page.read_text(encoding="utf-8")):
        key, _, value = code.partition("=")
        if key.lstrip("'") in keys and "<" not in code and not code.endswith("*"):
            yield from (f"{key}={one}" for one in value.split("|"))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the files that the pages speak of, which is also the user's own."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("imagenet/class", "results/records"):
        (folder / name).mkdir(parents=True)
    files = (
        "deit_small.pth",
        "weights.safetensors",
        "meter.csv",
        "results.bundle.zip",
        "imagenet/class/1.png",
        "mine.txt",
    )
    for name in files:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory, home):
    """What a shell makes of every line: program and arguments, per line; one shell reads them all."""
    folder = tmp_path_factory.mktemp("shell")
    shim = """{ printf '%s\\0' NAME "$@"; printf '\\1'; } >> words"""
    script = "".join(f"{name}() {{ {shim.replace('NAME', name)}; }}\n" for name in ("bench", "python", "nox"))
    lines = [(page, line) for page in PAGES for line in lines_of(page)]
    lines += [(page, f"bench {code}") for page in PAGES for code in overrides_of(page)]
    unlike = dict.fromkeys(line for _, line in lines)
    found = {}
    (folder / "script").write_text("\n".join(["set -e", script, *map(placed, unlike)]))
    done = subprocess.run(
        ["bash", "script"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HOME": str(home)},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    said = [line.split("\0")[:-1] for line in (folder / "words").read_text().split("\1")[:-1]]
    assert len(said) >= len(unlike)
    for argv in said:
        found.setdefault(tuple(argv), argv)
    return list(found.values())


def of_program(words, module):
    """The arguments of the lines that start a module, however they start it."""
    starts = (["python", "-m", module], *([["bench"]] if module == "bench" else []))
    return [argv[len(start) :] for argv in words for start in starts if argv[: len(start)] == start]


@pytest.fixture
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(cli, "register_suites", cache(cli.register_suites))
    monkeypatch.setattr(cli, "open_streams", lambda: [])
    monkeypatch.setattr(cli, "close_streams", lambda sinks: True)


#: Overrides that need company, which the sentence around them names.
COMPANY = {
    "tf32": ["device=cuda"],
    "device.cuda_graphs=true": ["device=cuda"],
    "l2=cold": ["device=cuda"],
    "task=imagefolder": ["data.root=imagenet"],
    "data.root": ["task=imagefolder", "data.root=imagenet"],
    "energy.csv": ["protocol.energy.backend=external"],
    "energy.backend=external": ["protocol.energy.csv=meter.csv"],
    "energy.backend=estimate": ["protocol.energy.watts=65"],
    "energy.watts": ["protocol.energy.backend=estimate"],
    "job=compare": ["a=x", "b=y"],
    "job=reproduce": ["row=2f6c"],
    "grid=": ["suite={suite}"],
}


def suite_with(grid):
    """A suite that has a grid of this name; a sentence around the grid says which."""
    return next((name for name, suite in cli.register_suites().items() if grid in suite["grids"]), "none")


def code_of(argv, monkeypatch):
    """The exit code of a command line whose job does nothing, and what it said."""
    monkeypatch.setattr(jobs, "run_job", lambda config: 0)
    if len(argv) == 1 or any(word.startswith("grid=") for word in argv[:1]):  # overrides from running text
        argv += [
            more.format(suite=suite_with(argv[0].removeprefix("grid=")))
            for sign, words in COMPANY.items()
            if sign in argv[0]
            for more in words
            if more.split("=")[0] != argv[0].split("=")[0]
        ]
    monkeypatch.setattr(sys, "argv", ["bench", *argv])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.slow
def test_every_documented_command_is_taken_by_shell_hydra_and_configuration(words, at_home, monkeypatch, capsys):
    lines = [argv for argv in of_program(words, "bench") if "-sc" not in argv]
    assert len(lines) > 40
    refused = []
    for argv in lines:
        if code_of(argv, monkeypatch):
            refused.append((argv, capsys.readouterr().err))
    assert not refused, "\n".join(f"{argv}: {said}" for argv, said in refused)


def test_every_other_documented_program_is_there_with_the_flags_that_are_shown(words):
    modules = {argv[2] for argv in words if argv[:2] == ["python", "-m"]} - {"bench", "pip"}
    assert {"reports.finding_tables", "perf.instrument"} <= modules
    for module in modules:
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin, module
        texts = {
            node.value for node in ast.walk(ast.parse(Path(spec.origin).read_text())) if isinstance(node, ast.Constant)
        }
        for argv in of_program(words, module):
            assert {word for word in argv if word.startswith("--")} <= texts, argv


def test_every_documented_session_of_nox_exists(words):
    text = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = {argv[argv.index("-s") + 1] for argv in words if argv[0] == "nox" and "-s" in argv}
    assert {"tests", "lint"} <= sessions
    assert all(re.search(rf"^def {name}\(|name=\"{name}\"", text, re.M) for name in sessions), sessions


@pytest.mark.parametrize(
    "value",
    [
        "plain/x.y",
        "a b",
        "x#y",
        "a,b",
        "it's",
        'q"q',
        "back\\",
        'x\\"y',
        "${oc.env:HOME}",
        "[a]",
        "f(x)",
        "a=b",
        "b·c",
        "123",
        "1e5",
        "null",
        "true",
    ],
)
def test_a_command_that_a_page_tells_to_type_arrives_as_it_was_meant(value):
    """Through a shell and Hydra, whatever signs a folder's name or a key has."""
    said = subprocess.run(
        ["bash", "-c", f"printf '%s' {as_word('paths.results', value)}"], capture_output=True, text=True, check=True
    )
    (override,) = OverridesParser.create().parse_overrides([said.stdout])
    tree = OmegaConf.create({"results": override.value()})
    assert OmegaConf.to_container(tree, resolve=True) == {"results": value}
