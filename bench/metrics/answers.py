"""Metrics of what a case answers: scores of tasks, and how far outputs are from the other side's."""

from __future__ import annotations

from bench.metrics.metric import Metric

ANSWERS: tuple[Metric, ...] = (
    Metric(
        "accuracy",
        unit="%",
        better="higher",
        section="quality",
        title="Accuracy",
        definition="Top-1 on the task's held-out samples with a 95 % Wilson interval.",
    ),
    Metric(
        "character_error_rate",
        unit="%",
        better="lower",
        section="quality",
        title="Character error rate",
        definition=(
            "Edits that turn a written line into the right one over its length, mean over held-out lines; with a 95 % "
            "t-interval over lines."
        ),
    ),
    Metric(
        "step_accuracy",
        unit="%",
        better="higher",
        section="quality",
        title="Accuracy per step",
        definition=(
            "Mean over held-out sequences of the share of answered time steps whose answer is right; with a 95 % "
            "t-interval over sequences."
        ),
    ),
    Metric(
        "bits_per_byte",
        unit="bit/B",
        better="lower",
        section="quality",
        title="Bits per byte",
        definition=(
            "Mean over equally long pieces of held-out text of the bits that the model needs for each byte of the"
            " second half of a piece, given all before it (through its own cache where it has one); with a 95 % "
            "t-interval over pieces. Only texts of one hash are compared."
        ),
    ),
    Metric(
        "psnr_db",
        unit="dB",
        better="higher",
        section="quality",
        title="PSNR",
        definition=(
            "Mean over held-out pictures of 10 log10(1 / mean squared error) of pixels in 0..1; with a 95 % "
            "t-interval over pictures."
        ),
    ),
    Metric(
        "end_point_error",
        unit="px",
        better="lower",
        section="quality",
        title="End-point error",
        definition=(
            "Mean over held-out pairs of views of the mean distance, in pixels of the view, of said from true "
            "disparities, where both views show the place; with a 95 % t-interval over pairs."
        ),
    ),
    Metric(
        "dice",
        unit="1",
        better="higher",
        section="quality",
        title="Dice",
        definition=(
            "Mean over held-out volumes of 2 |A and B| / (|A| + |B|) of predicted and true foreground; with a 95 % "
            "t-interval over volumes."
        ),
    ),
    Metric(
        "mean_iou",
        unit="1",
        better="higher",
        section="quality",
        title="Mean IoU",
        definition=(
            "Mean over held-out questions of |A and B| / |A or B| of the predicted and the true mask, in patches "
            "of the picture; with a 95 % t-interval over questions."
        ),
    ),
    Metric(
        "forecast_error",
        unit="1",
        better="lower",
        section="quality",
        title="Forecast error",
        definition=(
            "Mean over held-out fields of the root mean squared error after 24 hours over that of taking the fields "
            "as they were; with a 95 % t-interval over fields."
        ),
    ),
    Metric(
        "rate_error",
        unit="1/min",
        better="lower",
        section="quality",
        title="Rate error",
        definition=(
            "Mean over held-out signals of the mean absolute error of the rate over all steps from the transient on; "
            "with a 95 % t-interval over signals."
        ),
    ),
    Metric(
        "field_error",
        unit="1",
        better="lower",
        section="quality",
        title="Field error",
        definition=(
            "Mean over held-out fields of the length of the error over the length of the field; with a 95 % "
            "t-interval over fields."
        ),
    ),
    Metric(
        "distance_error",
        unit="1",
        better="lower",
        section="quality",
        title="Distance error",
        definition=(
            "Mean over held-out points of the absolute error of the signed distance, in halves of the cube's side; "
            "with a 95 % t-interval over points."
        ),
    ),
    Metric(
        "normal_error",
        unit="deg",
        better="lower",
        section="quality",
        title="Normal error",
        definition=(
            "Mean over held-out points of the angle between the answered and the true gradient of the signed distance; "
            "with a 95 % t-interval over points."
        ),
    ),
    Metric(
        "nll",
        unit="nat",
        better="lower",
        section="quality",
        title="Negative log density",
        definition=(
            "Mean over held-out data sets of the negative log density of their queries' observations; with a 95 % "
            "t-interval over data sets."
        ),
    ),
    Metric(
        "auroc",
        unit="%",
        better="higher",
        section="quality",
        title="AUROC",
        definition=(
            "Share of pairs of a held-out normal and a held-out abnormal sample of which the abnormal one has the "
            "higher score, a tie counting half (area under the receiver operating characteristic, Hanley and McNeil "
            "1982); with a 95 % t-interval over abnormal samples, the normal ones given."
        ),
    ),
    Metric(
        "cosine",
        unit="1",
        better="higher",
        section="quality",
        title="Cosine",
        definition=(
            "Mean over held-out samples of the cosine of the made and the wanted embedding; with a 95 % t-interval "
            "over samples."
        ),
    ),
    Metric(
        "frechet_distance",
        unit="1",
        better="lower",
        section="quality",
        title="Frechet distance",
        definition=(
            "Distance of the normal distributions that fit the features of made and of held-out pictures, in the "
            "task's own frozen classifier: no FID of a paper. No interval: the spread of the plain model's seeds "
            "and the floor of real pictures."
        ),
    ),
    Metric(
        "output_error",
        unit="1",
        better="lower",
        section="fidelity",
        title="Error against the other side",
        definition=(
            "L2 norm of the difference of all outputs from those of the other side, over the L2 norm of those, on"
            " the same inputs and weights."
        ),
    ),
    Metric(
        "output_sqnr_db",
        unit="dB",
        better="higher",
        section="fidelity",
        title="SQNR against the other side",
        definition="The same error in decibels: 10 log10 of the energy of those outputs over that of the difference.",
    ),
    Metric(
        "top1_agreement",
        unit="%",
        better="higher",
        section="fidelity",
        title="Top-1 agreement",
        definition=(
            "Share of output vectors (last axis) whose largest element is where the other side's is, on the same "
            "inputs and weights; of outputs with an axis of two elements or more to choose among."
        ),
    ),
)
