"""Sessions: bench (the main job), tests, lint, perf (our own benchmarks), docs, docs_site, build.

python -m pip install nox && nox -s bench
python -m pip install nox && nox -s tests
"""

import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"  # pip: it honours whatever index and wheels the user has configured
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests", "lint"]

PERF = ("counters", "overhead", "instrument", "site_speed", "scale")

#: The default tests run in two processes, file by file, so that tests that share a sweep stay together; the slowest are
#: told, so that a run that grows says where.
TOGETHER = ("-n", "2", "--dist", "loadfile", "--durations", "15")

CONSTRAINTS = ("-c", "constraints.txt")


def install(session: nox.Session, *extras: str) -> None:
    """The project, editable, with the pinned versions."""
    target = f".[{','.join(extras)}]" if extras else "."
    session.install(*CONSTRAINTS, "-e", target)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the main job on the embedded default; further words are Hydra overrides."""
    install(session)
    session.run("python", "-m", "bench", *(session.posargs or ["suite=vit_tokens"]), success_codes=[0, 3])


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; further words go to pytest (`-m slow`, `-m gpu`, a file)."""
    install(session, "dev", "quantised", "timm", "transformers", "diffusers", "pruning", "onnx", "openvino", "bleu",
            "weights", "pool", "serving", "history", "store")  # fmt: skip
    # Bytecode is kept, else each of some hundred processes would compile the project again; two processes whose torch
    # took both cores each would wait for each other.
    env = {"PYTHONDONTWRITEBYTECODE": "", "OMP_NUM_THREADS": "1"}
    session.run("python", "-m", "pytest", *(session.posargs or TOGETHER), env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the import rules between rooms."""
    install(session, "dev")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Write the tables of systems in the documents from the cards; `--check` only says which are stale."""
    install(session)
    session.run("python", "-m", "bench.app.generate_docs", *session.posargs)


@nox.session
def docs_site(session: nox.Session) -> None:
    """The documentation as static pages in site/docs, or the folder that is named; `links` asks every outside address.

    Every link between documents is checked, and the examples of the gallery are run.
    """
    install(session, "docs")
    session.run("python", "-m", "bench.app.generate_docs", "--check")
    builder, folder = "html", Path("site", "docs")
    if session.posargs == ["links"]:
        builder, folder = "linkcheck", Path(session.create_tmp(), "links")
    elif session.posargs:
        folder = Path(session.posargs[0])
    trees = Path(session.create_tmp(), "doctrees")
    options = ["-W", "--keep-going", "-q"] if builder == "html" else ["-q"]
    session.run("sphinx-build", *options, "-c", "docs", "-d", str(trees), "-b", builder, ".", str(folder))


@nox.session
def perf(session: nox.Session) -> None:
    """Benchmarks of the instrument itself: counters, overhead, accuracy of the clock, growth. Never asserted on."""
    install(session, "dev", "pool")
    for script in session.posargs or PERF:
        session.run("python", "-m", f"perf.{script}")


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, install the wheel, and run a plan from another folder."""
    session.install(*CONSTRAINTS, "build", "hatchling")
    session.run("python", "-m", "build", "--outdir", "dist")
    wheel = max(Path("dist").glob("*.whl"), key=lambda path: path.stat().st_mtime).resolve()
    session.install(*CONSTRAINTS, "--force-reinstall", "--no-deps", str(wheel))
    session.install(*CONSTRAINTS, str(wheel))
    with tempfile.TemporaryDirectory() as folder, session.chdir(folder):
        session.run("bench", "suite=vit_tokens", "job=plan", external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of the pinned versions; tells, does not fail, and needs the network."""
    session.install("pip-audit")
    session.run("pip-audit", "-r", "constraints.txt", "--no-deps", success_codes=[0, 1])
