"""What makes two machines alike: the key of rows that may be ranked together, and the class of hardware in a line."""

from __future__ import annotations

import math
from typing import Any

from bench.canonical import digest
from bench.host.environment import UNLIMITED, Environment

GIB = 2**30


def machine_key(env: Environment) -> str:
    """Hash of what makes two numbers comparable: rows with the same key may be ranked together.

    In: the CPU's model and architecture, its cores (physical, logical, usable), the cgroup's CPU limit, the memory to
    the nearest power of two GiB, every GPU with its memory, power limit and MIG state, which of them CUDA sees where
    they differ or are divided, the family of operating system and C library, Python's minor version, and torch with its
    build.

    Out, though `difference` shows them: kernel, driver, microcode, governor, environment variables and other
    packages, which change in ordinary upkeep; threads and dtype, which belong to the case; and host names, so that
    two equal machines have one key.

    Read the environment before a process pins itself to a core: usable cores are those of the caller.
    """
    cpu, packages = env.get("cpu", {}), env.get("packages", {})
    torch_version = packages.get("torch")
    return digest(
        {
            "cpu": [cpu.get("model"), cpu.get("architecture")],
            "cores": [cpu.get("physical_cores"), cpu.get("logical_cores"), cpu.get("usable_cores")],
            "cpu_limit": env.get("limits", {}).get("cpu_cores"),
            "memory": _memory_class(env),
            "gpus": [*_gpu_classes(env), *_visible_classes(env)],
            "os": [str(env.get("os", "")).split(" ")[0], str(env.get("libc", "")).split(" ")[0]],
            "python": ".".join(str(env.get("python", "")).split(".")[:2]),
            "torch": torch_version,
        }
    )


def machine_class(env: Environment) -> str:
    """The hardware in one readable line, without software: equal text means the same class of machine."""
    cpu = env.get("cpu", {})
    cores = f"{cpu.get('physical_cores') or '?'} cores ({cpu.get('logical_cores') or '?'} threads)"
    limit = env.get("limits", {}).get("cpu_cores")
    parts = [
        str(cpu.get("model") or "unknown CPU"),
        cores + (f", limited to {limit:g}" if limit else ""),
        _memory_class(env),
        ", ".join(" ".join(str(part) for part in gpu if part) for gpu in _gpu_classes(env)) or "no GPU",
    ]
    return " · ".join(parts)


def machine_make(record: dict[str, Any]) -> str:
    """The make of what computed a record: of a GPU the board that CUDA saw, and its MIG instance; else the processor.

    Empty where the record's environment names neither.
    """
    environment, device = record.get("environment") or {}, str((record.get("case") or {}).get("device", "cpu"))
    if device != "cpu":
        name = f"cuda:{device.partition(':')[2] or 0}"
        gpus = environment.get("gpus") or []
        seen = [gpu for gpu in gpus if gpu.get("visible_as") == name] or gpus[:1]
        if seen:
            return str(seen[0].get("visible_instance") or seen[0].get("name") or "")
    return str((environment.get("cpu") or {}).get("model") or "")


def _memory_class(env: Environment) -> str:
    """The usable memory to the nearest power of two: `about 32 GiB`."""
    limit = env.get("limits", {}).get("memory_bytes")
    usable = min(value for value in (env.get("memory_bytes"), limit, UNLIMITED) if value)
    if usable == UNLIMITED:
        return "unknown memory"
    return f"about {2 ** round(math.log2(usable / GIB)):g} GiB"


def _gpu_classes(env: Environment) -> list[list[Any]]:
    """Per GPU what its speed depends on: name, memory class, power limit, MIG devices."""
    return [
        [
            gpu.get("name"),
            f"{round(gpu['memory_bytes'] / GIB)} GiB" if gpu.get("memory_bytes") else None,
            f"{round(gpu['power_limit_w'])} W" if gpu.get("power_limit_w") else None,
            ", ".join(gpu.get("mig_devices") or []) or None,
        ]
        for gpu in env.get("gpus", [])
    ]


def _visible_classes(env: Environment) -> list[list[Any]]:
    """What CUDA sees, where that is not just boards like all the others: some of unlike boards, or a MIG instance."""
    classes = _gpu_classes(env)
    seen = [
        [*one, gpu.get("visible_instance")]
        for one, gpu in zip(classes, env.get("gpus", []), strict=True)
        if gpu.get("visible_as")
    ]
    alike = all(one[:-1] == classes[0] for one in seen) and all(one == classes[0] for one in classes)
    whole = all(one[-1] is None for one in seen)
    return [] if not seen or (alike and whole) else [["visible"], *seen]
