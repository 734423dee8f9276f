"""What is told of a pipeline beside its times: rates of its sections, arrivals, and what is sent."""

from __future__ import annotations

from bench.metrics.metric import Metric

PIPELINES: tuple[Metric, ...] = (
    Metric(
        "network_rate",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Rate of the network alone",
        definition="As the saturated rate, of the stage that runs the network, on inputs that are ready.",
    ),
    Metric(
        "preprocess_rate",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Rate of pre-processing alone",
        definition="As the saturated rate, of the stages that make the network's input of what has arrived.",
    ),
    Metric(
        "transfer_rate",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Rate of the transfer alone",
        definition="As the saturated rate, of the stage that moves a request here, or an input to its device.",
    ),
    Metric(
        "sojourn_in_services",
        unit="x",
        better="lower",
        section="pipeline",
        title="Time in system in service times (mean)",
        definition=(
            "Mean time in system over the mean service time of the same runs, open loop: a pure number, which the law "
            "of arrivals and services and the utilisation decide on any machine."
        ),
        comparison="form",
    ),
    Metric(
        "sojourn_expected_ms",
        unit="ms",
        better="none",
        section="pipeline",
        title="Time in system by its closed form (mean)",
        definition=(
            "What the queue of a server of known service has as its mean time in system under Poisson or evenly spaced "
            "arrivals at the offered rate; modelled."
        ),
    ),
    Metric(
        "sojourn_p99_in_services",
        unit="x",
        better="lower",
        section="pipeline",
        title="Time in system in service times (p99)",
        definition="99th percentile of the time in system over the mean service time, open loop; with 662 requests.",
        comparison="form",
    ),
    Metric(
        "hand_over_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Handing over an array",
        definition=(
            "Mean time that a pre-processed tensor takes into memory shared with the network's process and out of it, "
            "copies without waiting, where workers pre-process."
        ),
    ),
    Metric(
        "cores_busy",
        unit="core",
        better="none",
        section="pipeline",
        title="Cores kept busy",
        definition=(
            "Processor time over wall time of all processes of a pipeline (client, broker, workers) while it is "
            "saturated."
        ),
    ),
    Metric(
        "stage_utilisation",
        unit="%",
        better="none",
        section="pipeline",
        title="Utilisation of a stage",
        definition="Saturated rate times the part's mean service time over the servers: the largest is the bottleneck.",
    ),
    Metric(
        "most_in_system",
        unit="request",
        better="lower",
        section="pipeline",
        title="Largest number in system",
        definition="Most requests that had arrived and were not answered at one moment, open loop.",
    ),
    Metric(
        "timed_out_share",
        unit="%",
        better="lower",
        section="pipeline",
        title="Timed out",
        definition="Share of the scheduled requests that were not answered before the run was ended, open loop.",
    ),
    Metric(
        "goodput",
        unit="request/s",
        better="higher",
        section="pipeline",
        title="Goodput",
        definition="Requests per second answered within the limit of the shape, from the scheduled arrival, open loop.",
    ),
    Metric(
        "lateness_p99_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Lateness of arrivals (p99)",
        definition=(
            "99th percentile of the time from a scheduled arrival at a free server until that server takes it: what "
            "the measurement itself is late by."
        ),
    ),
    Metric(
        "together_mean",
        unit="request",
        better="none",
        section="pipeline",
        title="Answered together (mean)",
        definition="Requests of one batch, where a server answers several together, open loop.",
    ),
    Metric(
        "frame_rate",
        unit="frame/s",
        better="higher",
        section="pipeline",
        title="Frames",
        definition="Saturated rate times the frames of a request.",
    ),
    Metric(
        "pixel_difference",
        unit="level",
        better="lower",
        section="pipeline",
        title="Largest pixel difference",
        definition=(
            "Largest difference, in levels of 0 to 255, between what the network sees and what it sees in the "
            "reference chain, over all requests."
        ),
    ),
    Metric(
        "request_bytes",
        unit="B",
        better="none",
        section="pipeline",
        title="Bytes of a request",
        definition="Mean bytes of the encoded requests.",
    ),
    Metric(
        "request_pixels",
        unit="pixel",
        better="none",
        section="pipeline",
        title="Pixels of a request",
        definition="Mean of width times height of the encoded pictures.",
    ),
    Metric(
        "bits_per_pixel",
        unit="bit",
        better="none",
        section="pipeline",
        title="Bits per pixel",
        definition="Bits of a request's file over its pixels, mean.",
    ),
    Metric(
        "relu_elements",
        unit="element",
        better="lower",
        section="pipeline",
        title="ReLU elements",
        definition="Outputs of all ReLUs of one inference, counted: what garbled circuits are paid by.",
    ),
    Metric(
        "private_store_bytes",
        unit="B",
        better="lower",
        section="pipeline",
        title="Prepared bytes of a private inference",
        definition="ReLU elements times the bytes of a garbled ReLU, kept by the client for one inference; modelled.",
    ),
    Metric(
        "private_latency_ms",
        unit="ms",
        better="lower",
        section="pipeline",
        title="Private inference under arrivals",
        definition=(
            "Mean time in system of private inferences, each of which uses up one that was prepared: a queue with a "
            "store that is refilled; modelled, no cryptography runs."
        ),
    ),
)
