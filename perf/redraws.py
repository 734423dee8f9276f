"""What has to be drawn anew for a time to be drawn anew: fresh processes, builds, heaps, pages, pauses, side by side.

`python -m perf.redraws SAMPLES` times a few networks for ten minutes (`--minutes`) on a machine that does nothing else,
keeps every raw sample in the file SAMPLES, goes on where an earlier call was stopped, and prints the table; with
`--minutes 0` it only reads. What is measured comes in groups: four stretches of forwards, the reference product between
them, with one thing drawn anew before each further stretch (`TREATMENTS`). Every round has one group of each network
and treatment, in a shuffled order.

The table takes each treatment's groups apart with the estimators of `perf.scatter`: what iterations, blocks of ten and
stretches differ by within a group, and what groups differ by beyond that. A treatment is as good as a fresh process if
its stretches differ as much as fresh processes do; where it is, groups are not apart beyond that either. Intervals are
at 95 %: of a component J. S. Williams' (Biometrika 49, 1962: chi-squared ends of the whole less what is below), of a
share of variances Snedecor's F, both for normal logarithms.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from bench.errors import UsageError
from perf.redrawn import Order, as_json, stretches
from perf.reference_networks import REFERENCES
from perf.scatter import Case, Components, components, control, pooled, sessions_apart

#: Stretches of a group: their differences are what a treatment draws anew.
STRETCHES = 4
#: Of convolutions with many small tensors, of products with 19 MB of weights, of transforms that hardly hold any.
NETWORKS = ("inverted residuals", "TransformerEncoder, fast path", "Fourier filters")
#: A treatment is as good as a fresh process if it draws at least this share of that variance anew, for certain.
AS_GOOD = 0.8
SIDES = ("time", "ratio")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LAYOUT = Path("/proc/sys/kernel/randomize_va_space")

How = Literal["inside", "forked", "started", "started without randomisation"]
Stretch = Mapping[str, Any]


@dataclass(frozen=True)
class Treatment:
    """What happens between the stretches of a group; `how` says whose stretches they are."""

    name: str
    how: How
    shifted: bool = True


PROCESS = Treatment("process", "forked")
TREATMENTS = (
    Treatment("nothing", "inside"),
    Treatment("pause", "inside"),
    Treatment("build", "inside"),
    Treatment("shifted heap", "inside"),
    Treatment("pages", "inside"),
    Treatment("huge pages", "inside"),
    Treatment("core", "inside"),
    Treatment("process, heap in place", "forked", shifted=False),
    PROCESS,
    Treatment("start", "started", shifted=False),
    Treatment("start, layout fixed", "started without randomisation", shifted=False),
)


# ------------------------------------------------------------------------------------------------ measuring
def unavailable() -> dict[str, str]:
    """Treatments that this machine does not allow, with the reason."""
    found = {}
    if len(os.sched_getaffinity(0)) < 2:
        found["core"] = "this process may use one core only"
    setting = HUGE_PAGES.read_text() if HUGE_PAGES.exists() else "not told"
    if "[never]" in setting or setting == "not told":
        found["huge pages"] = f"{HUGE_PAGES}: {setting.strip()}"
    if shutil.which("setarch") is None:
        found["start, layout fixed"] = "there is no setarch here"
    elif subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False).returncode:
        found["start, layout fixed"] = "setarch -R is refused here"
    return found


def machine() -> dict[str, Any]:
    """What the samples depend on and a file's samples must share."""
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "virtual": any(line.startswith("flags") and " hypervisor" in line for line in told),
        "layout": LAYOUT.read_text().strip() if LAYOUT.exists() else None,
        "huge_pages": HUGE_PAGES.read_text().strip() if HUGE_PAGES.exists() else None,
    }


#: Forked from one that has torch imported, as the sweeps' processes are.
_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload(["perf.redrawn"])


def _send(order: Order, answer: Any) -> None:
    answer.send(stretches(order))


def _forked(order: Order) -> list[Stretch]:
    receive, send = _FRESH.Pipe(duplex=False)
    process = _FRESH.Process(target=_send, args=(order, send))
    process.start()
    send.close()
    try:
        found: list[Stretch] = receive.recv()
    except EOFError:
        raise UsageError(f"a process ended without samples ({order}); its own message is above") from None
    finally:
        process.join()
    return found


def _started(order: Order, prefix: Sequence[str] = ()) -> list[Stretch]:
    command = [*prefix, sys.executable, "-m", "perf.redrawn", as_json(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"a process ended with {done.returncode} ({order}): {done.stderr.strip()[-500:]}")
    found: list[Stretch] = json.loads(done.stdout)
    return found


def measure(treatment: Treatment, network: str, seed: int) -> list[Stretch]:
    """The stretches of one group."""
    if treatment.how == "inside":
        return _forked(Order(network, treatment.name, STRETCHES, seed=seed))
    prefix = ["setarch", "-R"] if treatment.how == "started without randomisation" else []
    found = []
    for number in range(STRETCHES):
        order = Order(network, seed=seed + number, shifted=treatment.shifted)
        found += _forked(order) if treatment.how == "forked" else _started(order, prefix)
    return found


def plan(networks: Sequence[str], treatments: Sequence[Treatment]) -> Iterator[tuple[int, str, Treatment]]:
    """Round, network and treatment of each group, for ever: every round in an order of its own."""
    for number in count():
        groups = [(network, treatment) for network in networks for treatment in treatments]
        random.Random(number).shuffle(groups)
        yield from ((number, network, treatment) for network, treatment in groups)


def read(file: Path) -> list[dict[str, Any]]:
    """The groups of a file, without a last line that was cut off; none where there is no file.

    Raises:
        UsageError: it was measured on another machine.
    """
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    groups = [json.loads(line) for line in lines]
    others = [group["machine"] for group in groups if group["machine"] != groups[0]["machine"]]
    if others:
        raise UsageError(f"{file} holds samples of two machines, {groups[0]['machine']} and {others[0]}: take it apart")
    return groups


def run(
    file: Path,
    networks: Sequence[str],
    treatments: Sequence[Treatment],
    seconds: float,
    sample: Callable[[Treatment, str, int], list[Stretch]] = measure,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Add the groups to a file that are missing and fit into so many seconds; each is written when it is done.

    Raises:
        UsageError: the file's samples are of another machine, or a process failed.
    """
    groups, here = read(file), machine()
    if groups and groups[0]["machine"] != here:
        raise UsageError(f"{file} holds samples of another machine ({groups[0]['machine']}): name a new file")
    done = {(group["round"], group["network"], group["treatment"]) for group in groups}
    whole = file.read_bytes() if file.exists() else b""
    start, longest = clock(), 0.0
    with file.open("r+b" if file.exists() else "wb") as out:
        out.truncate(whole.rfind(b"\n") + 1)  # a line that was cut off
        out.seek(0, os.SEEK_END)
        for number, network, treatment in plan(networks, treatments):
            if (number, network, treatment.name) in done:
                continue
            began = clock()
            if began - start + longest >= seconds:
                return
            found = sample(treatment, network, random.Random(f"{number}/{network}/{treatment.name}").randrange(2**31))
            line = {"round": number, "network": network, "treatment": treatment.name, "machine": here}
            out.write(json.dumps({**line, "stretches": found}).encode() + b"\n")
            out.flush()
            longest = max(longest, clock() - began)


# ------------------------------------------------------------------------------------------------ taking apart
@dataclass(frozen=True)
class Found:
    """What one treatment draws anew, of the time or of its ratio to the product.

    Attributes:
        name: of the treatment.
        groups: that it was measured in.
        parts: standard deviations within groups; `process` is what stretches differ by beyond iterations and wander.
        low: end of the interval of `process`.
        high: the other end.
        share: of the variance that fresh processes draw; None where theirs is not told from iterations and wander.
        elsewhere: share of stretches whose weights lie at another address than those of the stretch before.
        apart: standard deviation between groups beyond their stretches; not a number where there are too few.
    """

    name: str
    groups: int
    parts: Components
    low: float
    high: float
    share: tuple[float, float, float] | None
    apart: float
    elsewhere: float

    @property
    def says(self) -> str:
        """Whether it is as good as a fresh process."""
        if self.name == PROCESS.name:
            return "the measure"
        if self.share is None:
            return "not known: processes do not differ for certain"
        _, low, high = self.share
        if low >= AS_GOOD:
            return "as good as a process"
        return "less than a process" if high < 1 else "not known yet"


def component_interval(parts: Components, level: float = 0.95) -> tuple[float, float]:
    """The ends of `process`: chi-squared ends of the whole variance, less what iterations and wander explain."""
    tails = ((1 + level) / 2, (1 - level) / 2)
    whole = [parts.of_medians**2 * parts.free / float(stats.chi2.ppf(tail, parts.free)) for tail in tails]
    low, high = (math.sqrt(max(0.0, variance - parts.within**2)) for variance in whole)
    return low, high


def share_of(parts: Components, process: Components, level: float = 0.95) -> tuple[float, float, float] | None:
    """Share of the variance of fresh processes that is drawn anew, with its ends; None where that is not seen."""
    if component_interval(process, level)[0] == 0:
        return None
    ratio = parts.of_medians**2 / process.of_medians**2
    low, high = (float(stats.f.ppf(tail, parts.free, process.free)) for tail in ((1 - level) / 2, (1 + level) / 2))

    def beyond(variances: float) -> float:
        return max(0.0, variances * process.of_medians**2 - parts.within**2) / process.process**2

    return beyond(ratio), beyond(ratio / high), beyond(ratio / low)


def logs(group: Mapping[str, Any], side: str) -> list[np.ndarray]:
    """Of each stretch the logarithms of its forwards' times, or of their ratios to the product beside them."""
    found = []
    for stretch in group["stretches"]:
        forward = np.log(np.asarray(stretch["forward_ms"], dtype=float))
        product = np.log(np.asarray(stretch["product_ms"], dtype=float))
        found.append(forward if side == "time" else forward - product)
    return found


def as_case(group: Mapping[str, Any], side: str) -> Case | None:
    """A group as `perf.scatter` knows the processes of one session; None where it has too few."""
    parts = components(logs(group, side))
    if parts is None:
        return None
    medians = tuple(float(np.median(values)) for values in logs(group, side))
    products = tuple(math.log(statistics.median(stretch["product_ms"])) for stretch in group["stretches"])
    key = f"{group['network']}/{group['treatment']}"
    return Case(key, math.exp(statistics.fmean(medians)), medians, products, parts, None, None)


def taken_apart(groups: Sequence[Mapping[str, Any]], side: str) -> list[Found]:
    """Every treatment that was measured, over all networks: each group counts by what is within it.

    Args:
        groups: lines of a file.
        side: `time` or `ratio`.
    """
    process = pooled([logs(group, side) for group in groups if group["treatment"] == PROCESS.name])
    found = []
    for treatment in TREATMENTS:
        mine = [group for group in groups if group["treatment"] == treatment.name]
        parts = pooled([logs(group, side) for group in mine])
        if parts is not None:
            measure = process if treatment is not PROCESS else None
            share = share_of(parts, measure) if measure is not None else None
            apart, _ = sessions_apart(case for group in mine if (case := as_case(group, side)) is not None)
            ends = component_interval(parts)
            found.append(Found(treatment.name, len(mine), parts, *ends, share, apart, elsewhere(mine)))
    return found


def elsewhere(groups: Sequence[Mapping[str, Any]]) -> float:
    """Share of stretches whose weights lie at another address than in the stretch before; not a number if untold."""
    moves = []
    for group in groups:
        places = [stretch["address"] for stretch in group["stretches"]]
        moves += [one != other for one, other in pairwise(places) if one is not None and other is not None]
    return statistics.fmean(moves) if moves else math.nan


# ------------------------------------------------------------------------------------------------ telling
def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if math.isfinite(share) else "-"


def _whole(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "-"


def as_markdown(groups: Sequence[Mapping[str, Any]], side: str) -> str:
    """The table of one side, standard deviations as shares of the time."""
    lines = [
        "| drawn anew | groups | weights elsewhere | iteration | wander | stretches, beyond | 95 % "
        "| share of a process's variance | 95 % | groups apart | |",
        "|---|---:|---:|---:|---:|---:|---|---:|---|---:|---|",
    ]
    for one in taken_apart(groups, side):
        share, low, high = one.share or (math.nan,) * 3
        ends = f"{low:.2f} to {high:.2f}" if one.share else "-"
        lines.append(
            f"| {one.name} | {one.groups} | {_whole(one.elsewhere)} "
            f"| {_percent(one.parts.iteration)} | {_percent(one.parts.wander)} "
            f"| {_percent(one.parts.process)} | {_percent(one.low)} to {_percent(one.high)} "
            f"| {f'{share:.2f}' if one.share else '-'} | {ends} | {_percent(one.apart)} | {one.says} |"
        )
    return "\n".join(lines)


def remarks(groups: Sequence[Mapping[str, Any]]) -> str:
    """What the tables do not say: control by the product, cores, page frames, preemption, and the machine."""
    cases = [case for group in groups if (case := as_case(group, "time")) is not None]
    slope, left, free = control(case for case in cases if case.key.endswith(f"/{PROCESS.name}"))
    every = [stretch for group in groups for stretch in group["stretches"]]
    moved = [stretch["frames_moved"] for stretch in every if stretch["frames_moved"] is not None]
    huge = [
        stretch["in_huge_pages"] or 0.0
        for group in groups
        if group["treatment"] == "huge pages"
        for stretch in group["stretches"]
    ]
    migrated = sum(stretch["cores"][0] != stretch["cores"][1] for stretch in every)
    lines = [
        f"Processes and product: slope {slope:.2f}, {left:.0%} of the variance of medians is left ({free} degrees of "
        "freedom)."
        if free
        else "Processes and product: too few processes.",
        f"Page frames that were others after being given back: {statistics.fmean(moved):.0%}."
        if moved
        else "Page frames: not told on this machine.",
        f"Huge pages held {statistics.fmean(huge):.0%} of the weights where they were asked for."
        if huge
        else "Huge pages: not asked for.",
        f"{migrated} of {len(every)} stretches ended on another core than they began on; "
        f"{sum(stretch['preempted'] > 0 for stretch in every)} were preempted at least once.",
        f"Machine: {groups[0]['machine']}" if groups else "No samples.",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, print the tables; 2 where something cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.redraws", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", type=Path, help="file of raw samples, JSON lines; added to where it is there")
    parser.add_argument("--minutes", type=float, default=10.0, help="for new samples; 0 only reads")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=[item.name for item in REFERENCES])
    parser.add_argument("--treatments", nargs="+", default=None, choices=[item.name for item in TREATMENTS])
    given = parser.parse_args(argv)
    missing = unavailable()
    wanted = [item for item in TREATMENTS if given.treatments is None or item.name in given.treatments]
    try:
        if given.minutes > 0:
            allowed = [item for item in wanted if item.name not in missing]
            run(given.samples, given.networks, allowed, given.minutes * 60)
        groups = read(given.samples)
    except UsageError as error:
        print(f"redraws: {error}", file=sys.stderr)
        return 2
    for side in SIDES:
        print(f"## {'Times' if side == 'time' else 'Ratios to the product'}\n\n{as_markdown(groups, side)}\n")
    print(remarks(groups))
    for name, reason in missing.items():
        print(f"{name}: unavailable, {reason}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
