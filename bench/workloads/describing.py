"""The workloads as tables for people: `python -m bench.workloads.describing` prints those of docs/workloads.md."""

from __future__ import annotations

from bench.workloads import WORKLOADS, find
from bench.workloads.workload import ShapeAxis


def overview() -> str:
    """A Markdown table of workloads: what one run is, its parts and what throughput counts."""
    rows = ["| workload | one run is | parts | unit |", "|---|---|---|---|"]
    for name in WORKLOADS:
        workload = find(name)
        rows.append(f"| `{name}` | {workload.title} | {', '.join(workload.parts)} | {workload.unit} |")
    return "\n".join(rows)


def axes() -> str:
    """A Markdown table of the numbers of every workload's shape."""
    rows = ["| workload | axis | default | range | counts |", "|---|---|---|---|---|"]
    for name in WORKLOADS:
        for axis in find(name).axes:
            default = "null" if axis.default is None else f"{axis.default:g}"
            rows.append(f"| `{name}` | `{axis.name}` | {default} | {_range(axis)} | {axis.doc or axis.unit} |")
    return "\n".join(rows)


def _range(axis: ShapeAxis) -> str:
    if axis.high >= 2**31:
        return f"from {axis.low:g}"
    return f"{axis.low:g}" if axis.low == axis.high else f"{axis.low:g} to {axis.high:g}"


if __name__ == "__main__":
    print(overview(), axes(), sep="\n\n")
