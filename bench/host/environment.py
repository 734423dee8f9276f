"""What the numbers were taken on: the environment record.

Everything is read unprivileged, without torch, in a fraction of a second. What cannot be read is `None` and has its
reason under `unreadable`. Host name, user and paths are left out unless asked for.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil

from bench import backends
from bench.host.gpus import read_gpus
from bench.host.personal import without_personal

Environment = dict[str, Any]
UNLIMITED = 2**60  # cgroup v1 writes "no limit" as a number near 2**63
ROOT = Path("/")

#: Instruction sets that decide which kernels a library picks.
FLAGS_OF_INTEREST = re.compile(
    r"^(sse4_2|avx|avx2|fma|f16c|avx512\w*|avx_vnni\w*|avx_ifma|avx10\w*|amx_\w+|asimd\w*|sve\w*|sme|sme2|bf16|i8mm)$"
)

OWN = "waterline-bench"
#: Distributions that this project does not ask for by name and whose version may still change or explain a number.
UNDECLARED = (
    "torchvision",
    "triton",
    "mkl",
    "intel-openmp",
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "transformers",
    "omegaconf",
)
#: The extra of those who work on the project: no number depends on it.
DEVELOPMENT = "dev"

#: Environment variables that change what libraries compute or how fast.
VARIABLES = re.compile(
    r"^(OMP|MKL|KMP|GOMP|OPENBLAS|BLIS|VECLIB|NUMEXPR|DNNL|ONEDNN|ATEN|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|CUDA|"
    r"CUBLAS|CUDNN|MALLOC|TCMALLOC)_\w+$|^(GLIBC_TUNABLES|NVIDIA_TF32_OVERRIDE|LD_PRELOAD|PYTHONHASHSEED|PYTHONMALLOC)$"
)
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)


def environment(device: str = "cpu", *, private: bool = False, root: Path = ROOT) -> Environment:
    """Everything about this machine and its software that bears on a number, as plain JSON types.

    Args:
        device: what the measurements will run on; kept in the record.
        private: also give host name, user, paths and GPU identifiers under `private` and `gpus[].uuid`.
        root: where `/proc` and `/sys` are looked for.
    """
    unreadable: dict[str, str] = {}
    gpus, driver, why_no_gpu = read_gpus(private=private)
    if why_no_gpu:
        unreadable["gpus"] = why_no_gpu
    result: Environment = {
        "device": device,
        "cpu": _cpu(root, unreadable),
        "frequency": _frequency(root, unreadable),
        "memory_bytes": int(psutil.virtual_memory().total),
        "memory": _memory_policy(root),
        "limits": cgroup_limits(root),
        "hypervisor": _hypervisor(root),
        "container": _container(root),
        **_software(),
        "packages": _packages(),
        "variables": _variables(private),
        "gpus": gpus,
        "gpu_driver": driver,
        "unreadable": unreadable,
    }
    if "torch" in sys.modules:
        result["torch"] = torch_build()
    if private:
        result["private"] = _private()
    return result


def torch_build() -> dict[str, Any]:
    """How the torch that this process has imported was built and what it picked; call it after importing torch.

    Raises:
        RuntimeError: torch is not imported in this process.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        raise RuntimeError("torch is not imported in this process, so nothing can be said about its build")
    backends = torch.backends
    return {
        "version": str(torch.__version__),
        "git_version": torch.version.git_version,
        "cuda": torch.version.cuda,
        "cudnn": backends.cudnn.version() if torch.version.cuda else None,
        "hip": torch.version.hip,
        "cpu_capability": backends.cpu.get_cpu_capability(),
        "mkl": backends.mkl.is_available(),
        "mkldnn": backends.mkldnn.is_available(),
        "openmp": backends.openmp.is_available(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "debug": bool(torch.version.debug),
    }


def cgroup_limits(root: Path = ROOT) -> dict[str, Any]:
    """Cores and bytes that this process's control group allows; `None` where there is no limit.

    The strictest limit on the way from the group to the root counts. Versions 1 and 2 are understood.

    Args:
        root: where `/proc` and `/sys` are looked for.
    """
    groups = _own_groups(root)
    base = root / "sys/fs/cgroup"
    if (base / "cgroup.controllers").exists():
        folders = _up(base, groups.get("", "/"))
        cores = [_quota(*(_read(folder / "cpu.max") or "max 100000").split()) for folder in folders]
        memory = [_bytes(_read(folder / "memory.max")) for folder in folders]
        version: int | None = 2
    else:
        cores = [
            _quota(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))
            for folder in _up(base / "cpu", groups.get("cpu", "/"))
        ]
        memory = [
            _bytes(_read(folder / "memory.limit_in_bytes"))
            for folder in _up(base / "memory", groups.get("memory", "/"))
        ]
        version = 1 if (base / "memory").exists() or (base / "cpu").exists() else None
    return {"cgroup_version": version, "cpu_cores": _least(cores), "memory_bytes": _least(memory)}


def _own_groups(root: Path) -> dict[str, str]:
    """Controller to path of this process's control groups; version 2 under the empty name."""
    groups = {}
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _up(base: Path, path: str) -> list[Path]:
    """The group's folder and all above it up to `base`; only `base` where the path is not visible from here."""
    folder = base / path.lstrip("/")
    if ".." in path or not folder.is_dir():
        return [base]
    return [folder, *[parent for parent in folder.parents if parent.is_relative_to(base)]]


def _quota(quota: str | None, period: str | None = None) -> float | None:
    """Cores from quota and period in microseconds."""
    if not quota or not period or quota == "max" or int(quota) <= 0 or int(period) <= 0:
        return None
    return round(int(quota) / int(period), 2)


def _bytes(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and int(text) < UNLIMITED else None


def _least(values: list[Any]) -> Any:
    return min((value for value in values if value is not None), default=None)


def _cpu(root: Path, unreadable: dict[str, str]) -> dict[str, Any]:
    """The processor: what it is, what it can do, how many cores this process may use."""
    info = _cpuinfo(root)
    model = info.get("model name") or info.get("Model") or info.get("Hardware") or platform.processor()
    if not model:
        unreadable["cpu.model"] = "neither /proc/cpuinfo nor the platform names the processor"
    flags = (info.get("flags") or info.get("Features") or "").split()
    return {
        "model": " ".join(model.split()) if model else None,
        "vendor": info.get("vendor_id") or info.get("CPU implementer"),
        "architecture": platform.machine(),
        "family": info.get("cpu family"),
        "model_number": info.get("model") or info.get("CPU part"),
        "stepping": info.get("stepping") or info.get("CPU revision"),
        "microcode": info.get("microcode"),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(logical=True),
        "usable_cores": usable_cores(),
        "smt": {"1": True, "0": False}.get(_read(root / "sys/devices/system/cpu/smt/active") or ""),
        "numa_nodes": len(list((root / "sys/devices/system/node").glob("node[0-9]*"))) or None,
        "caches": _caches(root, unreadable),
        "flags": sorted({flag for flag in flags if FLAGS_OF_INTEREST.match(flag)}),
        "mitigations": _mitigations(root),
    }


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor of `/proc/cpuinfo`."""
    first = (_read(root / "proc/cpuinfo") or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def usable_cores() -> int | None:
    """Processors that this process may run on, or `None` where nothing tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _caches(root: Path, unreadable: dict[str, str]) -> list[dict[str, Any]]:
    """The caches that core 0 sees: level, kind, bytes and how many logical cores share one."""
    caches = []
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*")):
        size = _size(_read(folder / "size"))
        if size is None:
            continue
        level = int(_read(folder / "level") or 0)
        shared = _count_list(_read(folder / "shared_cpu_list"))
        caches.append({"level": level, "kind": _read(folder / "type"), "bytes": size, "shared_by": shared})
    if not caches:
        unreadable["cpu.caches"] = "the kernel does not describe the caches"
    return caches


def _size(text: str | None) -> int | None:
    """`48K` and the like in bytes."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text or "")
    return int(match[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[match[2]] if match else None


def _count_list(text: str | None) -> int | None:
    """How many numbers a kernel list such as `0-3,8` holds."""
    if not text:
        return None
    ends = [part.split("-") for part in text.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _mitigations(root: Path) -> list[str]:
    """Names of the processor vulnerabilities that the kernel works around at a cost."""
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    return sorted(path.name for path in folder.glob("*") if (_read(path) or "").startswith("Mitigation"))


def _frequency(root: Path, unreadable: dict[str, str]) -> dict[str, Any]:
    """Who sets the clock and how far it may go; `turbo` is True, False or unknown."""
    cpu = root / "sys/devices/system/cpu"
    policy = cpu / "cpu0/cpufreq"
    if not policy.is_dir():
        unreadable["frequency"] = "no cpufreq interface (usual on virtual machines)"
    no_turbo, boost = _read(cpu / "intel_pstate/no_turbo"), _read(cpu / "cpufreq/boost")
    turbo = {"0": True, "1": False}.get(no_turbo or "", {"1": True, "0": False}.get(boost or ""))
    highest = _read(policy / "cpuinfo_max_freq")
    return {
        "governor": _read(policy / "scaling_governor"),
        "driver": _read(policy / "scaling_driver"),
        "energy_preference": _read(policy / "energy_performance_preference"),
        "max_mhz": int(highest) / 1000 if highest and highest.isdigit() else None,
        "turbo": turbo,
    }


def _memory_policy(root: Path) -> dict[str, Any]:
    """Swap and page policy, which decide what a first touch costs."""
    chosen = re.search(r"\[(\w+)\]", _read(root / "sys/kernel/mm/transparent_hugepage/enabled") or "")
    return {
        "swap_bytes": int(psutil.swap_memory().total),
        "transparent_hugepages": chosen[1] if chosen else None,
        "overcommit": _read(root / "proc/sys/vm/overcommit_memory"),
    }


def _hypervisor(root: Path) -> str | None:
    """The hypervisor's name, `unknown hypervisor` where only its presence shows, `None` on bare metal."""
    if "hypervisor" not in _cpuinfo(root).get("flags", "").split() and not (root / "sys/hypervisor").exists():
        return None
    kind = _read(root / "sys/hypervisor/type")
    return kind or _lscpu().get("Hypervisor vendor:") or "unknown hypervisor"


def _lscpu() -> dict[str, str]:
    """What `lscpu` says, empty where it is not installed; it can ask the processor, which Python cannot."""
    command = shutil.which("lscpu")
    if command is None:
        return {}
    try:
        done = subprocess.run([command, "-J"], capture_output=True, timeout=1, check=True, env={"LC_ALL": "C"})
        return {row["field"]: row["data"] for row in json.loads(done.stdout)["lscpu"] if row.get("data")}
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return {}


def _container(root: Path) -> str | None:
    """The kind of container this runs in, or `None`."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    return "kubernetes" if "KUBERNETES_SERVICE_HOST" in os.environ else os.environ.get("container")  # noqa: SIM112


def _software() -> dict[str, Any]:
    """Operating system, C library and Python."""
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        distribution = platform.mac_ver()[0] or None
    release = platform.release()
    version = ".".join(re.findall(r"\d+", release)[:2])
    return {
        "os": f"{platform.system()} {version}".strip(),
        "kernel": release,
        "distribution": distribution,
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "python_compiler": platform.python_compiler(),
    }


def _packages() -> dict[str, str]:
    """Installed versions of the distributions that matter; absent ones are left out."""
    found = {}
    for name in package_names():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" not in found and (version := _torch_on_path()):
        found["torch"] = version
    return found


def package_names() -> list[str]:
    """Distributions whose versions stand in a record: ours, what we ask for in any extra, what backends run on."""
    of_backends = [name for backend in backends.BACKENDS for name in backends.find(backend).distributions]
    return list(dict.fromkeys([OWN, *_declared(), *of_backends, *UNDECLARED]))


def _declared() -> list[str]:
    """What the project requires, extras included: from the checkout it runs in, else from its installed metadata."""
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        wanted = [*project["dependencies"], *(item for name in extras if name != DEVELOPMENT for item in extras[name])]
    else:
        try:
            wanted = importlib.metadata.requires(OWN) or []
        except importlib.metadata.PackageNotFoundError:
            return []
        wanted = [item for item in wanted if not re.search(rf"extra\s*==\s*['\"]{DEVELOPMENT}['\"]", item)]
    return [re.split(r"[^\w.-]", item, maxsplit=1)[0] for item in wanted]


def _torch_on_path() -> str | None:
    """The version of a torch that lies on the path without package metadata (a source build), not importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    match = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", _read(Path(spec.origin).with_name("version.py")) or "")
    return match[1] if match else "unknown"


def _variables(private: bool) -> dict[str, str]:
    """Variables that change results or speed; of paths only the last part, of devices only how many, unless private."""
    chosen = {name: value for name, value in os.environ.items() if VARIABLES.match(name) and not SECRET.search(name)}
    return dict(sorted(chosen.items() if private else ((name, _anonymous(value)) for name, value in chosen.items())))


def _anonymous(value: str) -> str:
    """The value without folders, names of people and machines, and GPU identifiers; of a home folder only `~` stays."""
    without_ids = re.sub(r"\b(GPU|MIG)-[0-9a-fA-F-]{6,}", r"\1", value)
    return re.sub(r"[^\s:;,=]*[/\\]", "", str(without_personal(without_ids)))


def _private() -> dict[str, Any]:
    """Who and where: only on request."""
    import getpass

    return {"host": platform.node(), "user": getpass.getuser(), "executable": sys.executable, "folder": os.getcwd()}


def _read(path: Path) -> str | None:
    """The file's text without surrounding space; `None` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
