"""Counters side by side: count, error against the closed form, time and what each says it left out.

Run `python -m perf.counters` for a Markdown table of every counter that is installed, `--json FILE` for the numbers.
Each counter runs in a process of its own: a failed trace of one must not change what the next one reports. Times are
processor time, best of a few runs, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Answer = tuple[float, str]  # MACs, and what the counter itself says it left out


def _ours(network: Any, inputs: tuple[Any, ...]) -> Answer:
    from bench.meters import macs

    count = macs.count(network, inputs, second_count=False)
    return count.macs, ", ".join(f"{row['operator']} x{row['calls']}" for row in count.uncounted)


def _ours_and_second(network: Any, inputs: tuple[Any, ...]) -> Answer:
    from bench.meters import macs

    count = macs.count(network, inputs)
    return count.macs, ", ".join(f"{row['operator']} x{row['calls']}" for row in count.uncounted)


def _fvcore(network: Any, inputs: tuple[Any, ...]) -> Answer:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(network, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    total = analysis.total()
    return total, ", ".join(f"{name} x{calls}" for name, calls in analysis.unsupported_ops().most_common(4))


def _flop_counter_mode(network: Any, inputs: tuple[Any, ...]) -> Answer:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as mode:
        network(*inputs)
    return mode.get_total_flops() / 2, ""


def _thop(network: Any, inputs: tuple[Any, ...]) -> Answer:
    import thop

    return thop.profile(network, inputs=inputs, verbose=False)[0], ""


def _torchinfo(network: Any, inputs: tuple[Any, ...]) -> Answer:
    import torchinfo

    return torchinfo.summary(network, input_data=list(inputs), verbose=0).total_mult_adds, ""


def _ptflops(network: Any, inputs: tuple[Any, ...]) -> Answer:
    import ptflops

    total, _ = ptflops.get_model_complexity_info(
        network,
        tuple(inputs[0].shape[1:]),
        input_constructor=lambda _: {_first_argument(network): inputs[0]},
        as_strings=False,
        print_per_layer_stat=False,
        verbose=False,
    )
    if total is None:
        raise RuntimeError("it returned nothing")
    return total, ""


def _first_argument(network: Any) -> str:
    import inspect

    return next(iter(inspect.signature(network.forward).parameters))


def _calflops(network: Any, inputs: tuple[Any, ...]) -> Answer:
    import calflops

    _, total, _ = calflops.calculate_flops(
        network, args=list(inputs), output_as_string=False, print_results=False, print_detailed=False
    )
    return total, ""


COUNTERS: dict[str, Callable[[Any, tuple[Any, ...]], Answer]] = {
    "Waterline": _ours,
    "Waterline + fvcore leg": _ours_and_second,
    "fvcore": _fvcore,
    "FlopCounterMode": _flop_counter_mode,
    "thop": _thop,
    "torchinfo": _torchinfo,
    "ptflops": _ptflops,
    "calflops": _calflops,
}
_NEEDS = {"thop": "thop", "torchinfo": "torchinfo", "ptflops": "ptflops", "calflops": "calflops", "fvcore": "fvcore"}


def _measure(counter: str, repeats: int) -> list[dict[str, Any]]:
    """One row per reference network: MACs, relative error, time over one eager forward, what was left out or failed."""
    import torch

    from perf.reference_networks import REFERENCES

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    for reference in REFERENCES:
        row: dict[str, Any] = {"counter": counter, "network": reference.name, "closed_form": reference.macs}
        torch.manual_seed(0)
        inputs = reference.inputs()
        try:
            row.update(_one(reference.build, inputs, COUNTERS[counter], repeats))
            row["error"] = row["macs"] / reference.macs - 1
        except Exception as problem:  # a counter that cannot do a network is a row of the table
            row["failure"] = (
                f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:120] if str(problem) else ''}"
            )
        rows.append(row)
    return rows


def _one(build: Callable[[], Any], inputs: tuple[Any, ...], count: Any, repeats: int) -> dict[str, Any]:
    import torch

    macs, left_out = 0.0, ""
    with torch.no_grad():
        forward = _best(lambda network: network(*inputs), build, repeats + 1)

        def run(network: Any) -> None:
            nonlocal macs, left_out
            macs, left_out = count(network, inputs)

        seconds = _best(run, build, repeats)
    return {"macs": macs, "left_out": left_out, "seconds": seconds, "forward_seconds": forward}


def _best(action: Callable[[Any], Any], build: Callable[[], Any], repeats: int) -> float:
    times = []
    network = build().eval()
    action(network)
    for _ in range(repeats):
        started = time.process_time()
        action(network)
        times.append(time.process_time() - started)
    return min(times)


# ---------------------------------------------------------------- the table
def _installed() -> list[str]:
    from importlib.util import find_spec

    return [name for name in COUNTERS if name not in _NEEDS or find_spec(_NEEDS[name])]


def _in_child(counter: str, repeats: int) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "perf.counters", "--counter", counter, "--repeats", str(repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(f"{counter} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def markdown(rows: list[dict[str, Any]]) -> str:
    """The count table (GMACs and error) and the time table (times one eager forward), one column per counter."""
    counters = list(dict.fromkeys(row["counter"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    cells = {(row["network"], row["counter"]): row for row in rows}
    shown = [name for name in counters if name != "Waterline + fvcore leg"]
    lines = ["| network | closed form | " + " | ".join(shown) + " |", "|---" * (len(shown) + 2) + "|"]
    for network in networks:
        truth = cells[network, counters[0]]["closed_form"] / 1e9
        lines.append(f"| {network} | {truth:.4f} | " + " | ".join(_count_cell(cells[network, c]) for c in shown) + " |")
    lines += ["", "| network | forward, ms | " + " | ".join(counters) + " |", "|---" * (len(counters) + 2) + "|"]
    for network in networks:
        forward = min(cells[network, c].get("forward_seconds", float("inf")) for c in counters)
        times = " | ".join(_time_cell(cells[network, c]) for c in counters)
        lines.append(f"| {network} | {forward * 1e3:.1f} | {times} |")
    lines += ["", "| network | fvcore says it skipped |", "|---|---|"]
    lines += [f"| {n} | {cells[n, 'fvcore'].get('left_out') or '-'} |" for n in networks if (n, "fvcore") in cells]
    return "\n".join(lines)


def _count_cell(row: dict[str, Any]) -> str:
    if "failure" in row:
        return f"fails ({row['failure'].split(':')[0]})"
    error = row["error"]
    text = f"{row['macs'] / 1e9:.4f}"
    return text if abs(error) < 5e-5 else f"**{text}** ({error:+.1%})"


def _time_cell(row: dict[str, Any]) -> str:
    return "-" if "failure" in row else f"{row['seconds'] / row['forward_seconds']:.2f}x"


def main() -> None:
    """Print the tables, or with --counter one counter's rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counter", choices=COUNTERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.counter:
        print(json.dumps(_measure(options.counter, options.repeats)))
        return
    rows = [row for counter in _installed() for row in _in_child(counter, options.repeats)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    print(markdown(rows))


if __name__ == "__main__":
    main()
