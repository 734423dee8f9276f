"""Rates of workloads whose unit of throughput is no sample; named after the unit."""

from __future__ import annotations

from bench.metrics.metric import Metric

RATES: tuple[Metric, ...] = (
    Metric(
        "tokens_per_s",
        unit="token/s",
        better="higher",
        section="throughput",
        title="Tokens per second",
        definition=(
            "Tokens of a run of the part over its time: those of the prompt of a prefill, new ones of a request, "
            "one per sequence of a decode step."
        ),
    ),
    Metric(
        "images_per_s",
        unit="image/s",
        better="higher",
        section="throughput",
        title="Images per second",
        definition="Images of a run of the part over its time.",
    ),
    Metric(
        "steps_per_s",
        unit="step/s",
        better="higher",
        section="throughput",
        title="Steps per second",
        definition=(
            "Time steps of all streams of the batch over the time of the part; a clip is run for one step, its newest."
        ),
    ),
    Metric(
        "requests_per_s",
        unit="request/s",
        better="higher",
        section="throughput",
        title="Requests per second",
        definition=(
            "Requests of a run of the part over its time, one after another: what a server gives that is never idle."
        ),
    ),
    Metric(
        "calls_per_s",
        unit="call/s",
        better="higher",
        section="throughput",
        title="Calls per second",
        definition="Calls of the function over their time.",
    ),
    Metric(
        "networks_per_s",
        unit="network/s",
        better="higher",
        section="throughput",
        title="Networks per second",
        definition="Networks whose cost is predicted in a run over its time.",
    ),
    Metric(
        "output_tokens_per_s",
        unit="token/s",
        better="higher",
        section="generation",
        title="Output tokens per second",
        definition="New tokens but the first over the time after the first: batch over the time per output token.",
    ),
)
