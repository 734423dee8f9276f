"""The words of a backend: what it needs, what it can compute in, and what it makes of a module.

A backend's module holds

- `BACKEND`, a `Backend`;
- `convert(module, args, kwargs, conditions) -> Converted`: the same calls, run elsewhere. What cannot be converted
  raises `ConversionFailed` and names the operator;
- optionally `why_not(device, dtype) -> str`: what only the library can tell about this machine, "" where nothing is
  amiss.

Most write a file and load it in a runtime: `bench.backends.exporting` does the rest for two functions, `write` and
`load`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Every type of the suite, for what computes in whatever the module has.
ALL_DTYPES = ("fp32", "tf32", "bf16", "fp16", "fp64")


class ConversionFailed(NotImplementedError):
    """A module that a backend cannot run, with the operator that it lacks; its row is `unsupported`."""


class BackendMissing(ConversionFailed):
    """A backend that cannot run here at all: its library, its device or its type is missing."""


@dataclass(frozen=True)
class Conditions:
    """What a conversion has to hold to.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N`.
        dtype: the suite's name of the type that the runtime has to compute in.
        threads: of the runtime's own pool, where it runs on the CPU.
        folder: where the artefact stays; one that is there already is loaded. None keeps it as long as the module
            lives.
        mode: of the compiler, for the backend that has one.
    """

    device: str = "cpu"
    dtype: str = "fp32"
    threads: int = 1
    folder: Path | None = None
    mode: str = "default"

    @property
    def kind(self) -> str:
        """The device without its number."""
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class Converted:
    """A module as a backend runs it.

    Attributes:
        module: called like the eager one; answers in the same structure.
        artefact_bytes: size on disk of what would be shipped; None where there is no such file, with `why_no_artefact`.
        conversion_ms: from the eager module to that file, in this process, libraries imported before; None where
            nothing was converted here, with `why_no_time`.
        versions: distribution -> version of what made and runs it.
        precision: the suite's name of the type that the runtime says it computes in.
        threads: of the runtime's pool, as the runtime says.
        details: plain JSON types for the record.
    """

    module: Any
    artefact_bytes: int | None = None
    conversion_ms: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    precision: str = ""
    threads: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    why_no_artefact: str = ""
    why_no_time: str = ""


@dataclass(frozen=True)
class Backend:
    """What a backend is called and what it needs.

    Attributes:
        name: as suites and the command line spell it.
        title: what people call it.
        dtypes: kind of device -> types that it really computes in there.
        why_dtypes: why the others are refused, one clause.
        needs: packages by the name they are imported under.
        extra: the extra of this project that installs them, or what to install.
        distributions: whose versions stand in the record.
        foreign: runs outside torch, with memory and layouts of its own, and offers whole forwards only.
        own_threads: works in threads of its own even where it is given one, so that the calling thread waits.
    """

    name: str
    title: str
    dtypes: Mapping[str, tuple[str, ...]]
    why_dtypes: str = ""
    needs: tuple[str, ...] = ()
    extra: str = ""
    distributions: tuple[str, ...] = ()
    foreign: bool = False
    own_threads: bool = False

    def why_not(self, device: str, dtype: str) -> str:
        """Why it cannot run here, with the remedy; "" if it can, as far as that is known without its library."""
        kind = device.partition(":")[0]
        if kind not in self.dtypes:
            return (
                f"{self.name} runs on {' and '.join(self.dtypes)}, not on {kind}: take device={next(iter(self.dtypes))}"
            )
        if dtype not in self.dtypes[kind]:
            usable = ", ".join(self.dtypes[kind])
            return (
                f"{self.name} does not compute in {dtype} on {kind}: {self.why_dtypes or 'it has no kernels'}; take "
                f"{usable}"
            )
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"{self.name} needs {', '.join(missing)}: {self.remedy}" if missing else ""

    @property
    def remedy(self) -> str:
        """The command that installs what it needs."""
        wanted = f"waterline-bench[{self.extra}]" if re.fullmatch(r"[\w-]+", self.extra) else self.extra
        return f'python -m pip install "{wanted}"'

    def versions(self) -> dict[str, str]:
        """Distribution -> version of what is installed of it."""
        found = {}
        for name in self.distributions:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
#: How the tools say which operator they cannot do: torch's exporters, OpenVINO, ONNX Runtime, ExecuTorch.
_OPERATORS = (
    re.compile(r"OpOverload\(op='([\w.:]+)'"),
    re.compile(r"No conversion rule found for operations: ([^\n]+)"),
    re.compile(r"implementation for (\w+)\(\d+\)"),
    re.compile(r"Missing out variants: \{([^}]*)\}"),
    re.compile(r"Operator torch\._ops\.([\w.]+) is not"),
    re.compile(r"([\w.]+) is not a registered function/op"),
    re.compile(r"torch\.ops\.(\w+\.\w+)"),
)


def operators_in(text: str) -> list[str]:
    """The operators that a tool's error names, by the most telling of its sentences; none if it names none."""
    for pattern in _OPERATORS:
        found = [name.strip(" '\"") for match in pattern.findall(text) for name in match.split(",")]
        if found:
            return list(dict.fromkeys(found))
    return []


def failed(backend: str, step: str, error: BaseException) -> ConversionFailed:
    """What a tool said, as the error of a row: the operator first, then the line that names it, else the first one."""
    chain = _chain(error)
    names = operators_in("\n".join(str(item) for item in chain))
    if not names and "data-dependent" in str(error):
        names = ["aten.item"]
    lines = [(item, line.strip()) for item in (*chain, error) for line in _COLOUR.sub("", str(item)).splitlines()]
    naming = [(item, line) for item, line in lines if any(name in line for name in names)]
    outer = [(item, line) for item, line in lines if item is error and line]
    item, line = next(iter(naming or outer), (error, "nothing"))
    where = f"operator {', '.join(names)}" if names else "no operator was named"
    return ConversionFailed(
        f"{backend} cannot run this module: {where}; {step} said {type(item).__name__}: {line[:500]}"
    )


#: What libraries say when memory runs out: another kind of row than one that cannot be converted.
_MEMORY = ("out of memory", "allocate memory", "bad_alloc", "bad allocation")


@contextlib.contextmanager
def telling(backend: str, step: str) -> Iterator[None]:
    """Runs a tool's step; what it raises becomes the error of a row.

    Raises:
        ConversionFailed: the tool refused, with the operator that it named.
        MemoryError: there was not enough memory for the step.
    """
    try:
        yield
    except (MemoryError, ConversionFailed):
        raise
    except Exception as error:
        if any(sign in str(error).lower() for sign in _MEMORY):
            raise MemoryError(f"{backend}: {step}: {error}") from error
        raise failed(backend, step, error) from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, the innermost first: it names the operator by itself."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found:
        found.insert(0, step)
        step = step.__cause__ or step.__context__
    return found
