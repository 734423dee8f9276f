"""The predictors by name: each is built unlearned, and learns when its task loads it."""

from __future__ import annotations

from typing import Literal

from bench.config.settings import Count, Positive, PositiveInt
from suites.predict.analytic import Given, MacsConstant, Multipliers, OtherForm, Roofline
from suites.predict.gradsign import GradSign
from suites.predict.graph import GraphSurrogate
from suites.predict.lut import Lut
from suites.predict.mlp import Classifier, RegressionMlp
from suites.predict.predictor import Predictor, Question
from suites.predict.transformer import LayerTransformer
from suites.predict.trees import Trees


def table_predictor(
    *,
    kind: Literal["macs", "multipliers", "roofline", "form", "sum", "constant", "linear", "trees"] = "sum",
    family: Literal["fbnet", "mobilenetv2", "dense", "conv", "exemplars", "zoo", "digits", "given"] = "fbnet",
    split: Literal["a", "b", "c", "d"] = "a",
    target: str = "latency_ms",
    machine: Literal["measured", "additive", "constant", "cached"] = "measured",
    form: Literal["plain", "folded", "channels_last"] = "plain",
    table: Literal["plain", "folded", "channels_last"] = "plain",
    inputs: Literal["warm", "cold"] = "warm",
    rounds: PositiveInt = 200,
    leaf: PositiveInt = 4,
) -> Predictor:
    """A predictor with few or no constants, or trees over a table.

    Args:
        kind: `macs`: products times a constant; `multipliers`: the same of products over a given column `reuse`;
            `roofline`: attainable time; `form`: what the same network took in the form `table`; `sum`: of the table's
            rows; `constant`: and a constant for each operator; `linear`: in sum, operators and bytes; `trees`: boosted,
            on numbers of rows.
        family: whose networks it learns constants from.
        split: `a` random, `b` deeper or wider networks, `c` other families, `d` another machine's or session's table.
        target: `latency_ms`, `peak_memory_bytes`, or a column of a table of the user's own.
        machine: `measured`, or a simulated one of which it is known what can be found.
        form: how the networks run: `plain`, with norms `folded`, or `channels_last` in memory.
        table: how the rows of the table ran.
        inputs: whether rows were measured with warm or with cold caches.
        rounds: of boosting.
        leaf: rows in a leaf of a tree at least.
    """
    question = Question(family, split, target, machine, form, table, inputs)
    if kind == "macs":
        return MacsConstant(question).eval()
    if kind == "multipliers":
        return Multipliers(question).eval()
    if kind == "roofline":
        return Roofline(question).eval()
    if kind == "form":
        return OtherForm(question).eval()
    if kind == "trees":
        return Trees(question, rounds, leaf).eval()
    return Lut(question, kind).eval()


def given_predictor(*, column: str = "predicted", target: str = "measured") -> Predictor:
    """A column of a table of the user's own, taken for the prediction of another.

    Args:
        column: what was predicted.
        target: what was measured.
    """
    return Given(Question("given", "a", target), column).eval()


def gradsign(*, by: Literal["signs", "macs"] = "signs", samples: PositiveInt = 32, seed: Count = 0) -> Predictor:
    """A rank of untrained networks by how alike the gradients of single samples are, or by products, the control.

    Args:
        by: what ranks.
        samples: whose gradients are looked at.
        seed: of weights and samples.
    """
    return GradSign(Question("digits", "a", "accuracy"), by, samples, seed).eval()


def wa_mlp(
    *,
    inputs: PositiveInt = 7,
    width: PositiveInt = 2048,
    decides: bool = False,
    family: Literal["fbnet", "mobilenetv2", "dense", "conv", "exemplars", "zoo", "digits", "given"] = "dense",
    split: Literal["a", "b", "c", "d"] = "a",
    target: str = "latency_ms",
    machine: Literal["measured", "additive", "constant", "cached"] = "measured",
    steps: PositiveInt = 200,
    rate: Positive = 1e-3,
    draw: Count = 0,
) -> Predictor:
    """wa-hls4ml's regression network, or its classifier.

    Args:
        inputs: numbers that it is told of a network.
        width: of its hidden layers; 2048 is the published one.
        decides: the classifier, of staying below the median cost of what it learns from.
        family: see `table_predictor`.
        split: see `table_predictor`.
        target: see `table_predictor`.
        machine: see `table_predictor`.
        steps: of training.
        rate: of learning.
        draw: seed of the order of what is learned from.
    """
    question = Question(family, split, target, machine)
    made = Classifier if decides else RegressionMlp
    return made(question, inputs, width, steps, rate, draw).eval()


def wa_gnn(
    *,
    width: PositiveInt = 512,
    family: Literal["fbnet", "mobilenetv2", "dense", "conv", "exemplars", "zoo", "digits", "given"] = "dense",
    split: Literal["a", "b", "c", "d"] = "a",
    target: str = "latency_ms",
    machine: Literal["measured", "additive", "constant", "cached"] = "measured",
    steps: PositiveInt = 200,
    rate: Positive = 1e-3,
    draw: Count = 0,
) -> Predictor:
    """wa-hls4ml's graph surrogate.

    Args:
        width: of its nodes; 512 is the published one.
        family: see `table_predictor`.
        split: see `table_predictor`.
        target: see `table_predictor`.
        machine: see `table_predictor`.
        steps: of training.
        rate: of learning.
        draw: seed of the order of what is learned from.
    """
    return GraphSurrogate(Question(family, split, target, machine), width, steps, rate, draw).eval()


def wa_transformer(
    *,
    width: PositiveInt = 128,
    layers: Count = 4,
    heads: PositiveInt = 8,
    family: Literal["fbnet", "mobilenetv2", "dense", "conv", "exemplars", "zoo", "digits", "given"] = "dense",
    split: Literal["a", "b", "c", "d"] = "a",
    target: str = "latency_ms",
    machine: Literal["measured", "additive", "constant", "cached"] = "measured",
    steps: PositiveInt = 200,
    rate: Positive = 1e-3,
    draw: Count = 0,
) -> Predictor:
    """wa-hls4ml's transformer surrogate.

    Args:
        width: of its tokens.
        layers: of the encoder.
        heads: of its attention.
        family: see `table_predictor`.
        split: see `table_predictor`.
        target: see `table_predictor`.
        machine: see `table_predictor`.
        steps: of training.
        rate: of learning.
        draw: seed of the order of what is learned from.

    Raises:
        ValueError: the width is no multiple of the heads.
    """
    if width % heads:
        raise ValueError(f"width={width} is no multiple of heads={heads}")
    return LayerTransformer(Question(family, split, target, machine), width, layers, heads, steps, rate, draw).eval()
