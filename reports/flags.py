"""What a flag on a row means and what to do about it."""

from __future__ import annotations

from typing import Any

#: Parts of a flag's code or text -> what it means; the first that fits is used.
_MEANINGS: tuple[tuple[str, str], ...] = (
    (
        "preempt",
        (
            "Other work took the processor from the measured process; such samples are long, and processes with many "
            "are set aside."
        ),
    ),
    ("pressure", "The system made processes wait for processor or memory while this was measured; times may be long."),
    (
        "busy",
        (
            "Other programs were using the processor; ratios stay fair because all cases were timed interleaved, "
            "absolute times may be long."
        ),
    ),
    (
        "drift",
        "The last third of the samples differs from the first: the machine had not settled or its clock changed.",
    ),
    ("steady", "The warm-up ended before times had settled."),
    ("page_fault", "The allocator kept returning memory to the system; times include page faults."),
    ("page fault", "The allocator kept returning memory to the system; times include page faults."),
    ("allocator", "The C library's allocator could not be told to keep its memory: times may include page faults."),
    ("stolen", "The hypervisor gave this machine's processors to others while this was measured; times may be long."),
    ("involuntary", "The measured process was interrupted often by other work; times may be long."),
    ("paging", "Pages were read from disk while this was measured; times may be long."),
    ("throttl", "The processor or GPU lowered its clock because of heat or power."),
    (
        "waiting at the last arrival",
        "Requests arrive faster than they are answered: the queue grows as long as they do, and has no time in system.",
    ),
    (
        "unstable",
        "The middle half of the samples spans more than a quarter of the median: read the interval, not the value.",
    ),
    (
        "late_arrivals",
        "Other work had the core when requests arrived at a free server: times in system are too long, and the row is "
        "not ranked.",
    ),
    ("noisy", "The middle half of the samples spans more than a tenth of the median."),
    ("foreign", "Another process was using the GPU."),
    ("uncounted", "Some operators are not in the count of MACs; they are named on this page."),
    ("coverage", "Some operators are not in the count of MACs; they are named on this page."),
    ("disagree", "Two independent counts of MACs differ by more than their conventions explain."),
    (
        "depends on the input",
        (
            "Operations and times above are those of one input; where there are readings over inputs, they say how far "
            "others differ."
        ),
    ),
    ("depends on the data", "Counts and times are those of the inputs that were run; others may cost more or less."),
    ("random", "The weights are random: costs are right where they do not depend on values, quality means nothing."),
    (
        "theoretical",
        "The weights are masked but stored and multiplied as usual: the saving is not realised by any kernel.",
    ),
    ("alias", "The time of one iteration is close to a multiple of the power sensor's period; energy may be biased."),
    ("unpaired", "The case was not timed beside its baseline, so the ratio is less certain."),
)

_SEVERITY = {
    "info": "For information; the numbers stand.",
    "warn": "Read the numbers with care.",
    "invalid": "The row is not ranked because of this.",
}


def meaning(flag: dict[str, Any]) -> str:
    """One or two sentences on what the flag means for the reader; a warning that says so itself needs no moral."""
    words = f"{flag.get('code', '')} {flag.get('text', '')}".lower()
    known = next((text for part, text in _MEANINGS if part in words), "")
    severity = str(flag.get("severity"))
    return known if known and severity == "warn" else " ".join(filter(None, [known, _SEVERITY.get(severity, "")]))
