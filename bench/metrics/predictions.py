"""Metrics of predictors of cost: how far predictions are from what was measured of networks not learned from."""

from __future__ import annotations

from bench.metrics.metric import Metric

PREDICTIONS: tuple[Metric, ...] = (
    Metric(
        "mape",
        unit="%",
        better="lower",
        section="prediction",
        title="MAPE",
        definition=(
            "Mean over held-out networks of |predicted - measured| / measured; with a 95 % bootstrap interval over "
            "networks. The predicted values are modelled."
        ),
        comparison="score",
    ),
    Metric(
        "smape",
        unit="%",
        better="lower",
        section="prediction",
        title="SMAPE",
        definition=(
            "Mean over held-out networks of 200 |y - p| / (|y| + |p|), no offset in the denominator, zero where both "
            "are zero; at most 200."
        ),
    ),
    Metric(
        "rmse",
        unit="cost",
        better="lower",
        section="prediction",
        title="RMSE",
        definition="Root of the mean squared error over held-out networks, in the unit of the cost: ms of a latency.",
    ),
    Metric(
        "r2",
        unit="1",
        better="higher",
        section="prediction",
        title="R2",
        definition="1 - SSE / SST over held-out networks; may be far below zero, and is never clipped.",
    ),
    Metric(
        "r2_log",
        unit="1",
        better="higher",
        section="prediction",
        title="R2 of logarithms",
        definition="The same of the logarithms, in which one large network does not decide.",
    ),
    Metric(
        "spearman",
        unit="1",
        better="higher",
        section="prediction",
        title="Spearman's rank correlation",
        definition="Of predicted and measured costs over held-out networks.",
    ),
    Metric(
        "kendall",
        unit="1",
        better="higher",
        section="prediction",
        title="Kendall's tau",
        definition="tau-b of predicted and measured costs over held-out networks.",
    ),
    Metric(
        "p75_abs_rel_error",
        unit="%",
        better="lower",
        section="prediction",
        title="Error, 75th percentile",
        definition="The relative error that three quarters of the held-out networks stay below.",
    ),
    Metric(
        "top1_regret",
        unit="1",
        better="lower",
        section="prediction",
        title="Regret of the choice",
        definition=(
            "Measured cost of the network that the predictor takes for the cheapest, over the least measured cost of "
            "the candidates; 1 is the best choice."
        ),
    ),
    Metric(
        "bias_percent",
        unit="%",
        better="none",
        section="prediction",
        title="Bias",
        definition="Geometric mean over held-out networks of predicted over measured, less one.",
    ),
    Metric(
        "spread_percent",
        unit="%",
        better="lower",
        section="prediction",
        title="Spread",
        definition="Standard deviation of the logarithms of predicted over measured, as a factor, less one.",
    ),
    Metric(
        "noise_mape",
        unit="%",
        better="none",
        section="prediction",
        title="Noise ceiling",
        definition=(
            "The MAPE of measuring the same networks again in as many processes, from each process against the "
            "others: a predictor there is as good as can be told."
        ),
    ),
    Metric(
        "decides_percent",
        unit="%",
        better="higher",
        section="prediction",
        title="Right side of the budget",
        definition=(
            "Share of held-out networks predicted to lie on that side of a budget, the median cost of what was "
            "learned from, on which they lie; with Wilson's interval."
        ),
    ),
    Metric(
        "coverage_percent",
        unit="%",
        better="higher",
        section="prediction",
        title="Networks predicted",
        definition="Share of held-out networks that the predictor has what it needs for; errors are over those.",
    ),
    Metric(
        "predicted_ms",
        unit="ms",
        better="none",
        section="prediction",
        title="Predicted time",
        definition="What the predictor says of a network; modelled, and never ranked beside a measured time.",
    ),
    Metric(
        "build_seconds",
        unit="s",
        better="lower",
        section="prediction",
        title="Time to build it",
        definition=(
            "Seconds of the processes that timed the table, and the training networks' share of theirs, and of fitting."
        ),
    ),
    Metric(
        "predict_us",
        unit="us",
        better="lower",
        section="prediction",
        title="Time of a prediction",
        definition="One prediction of an encoded network, by the time of a run over its networks.",
    ),
    Metric(
        "training_networks",
        unit="network",
        better="lower",
        section="prediction",
        title="Networks learned from",
        definition="Measured networks that constants or weights of the predictor were fitted to.",
    ),
    Metric(
        "table_entries",
        unit="entry",
        better="none",
        section="prediction",
        title="Entries of the table",
        definition="Measured rows of the look-up table that repeat well enough to be used.",
    ),
    Metric(
        "refused_entries",
        unit="entry",
        better="lower",
        section="prediction",
        title="Entries refused",
        definition="Rows whose processes vary by more than 10 % (standard deviation): neither published nor used.",
    ),
)
