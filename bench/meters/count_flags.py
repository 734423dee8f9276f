"""What a reader must know of a count, as flags {code, severity, text}: each a pure function of what was seen."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from bench.flags import Flag, flag
from bench.meters.macs_count import MacsCount
from bench.meters.reach import hidden_tensors
from bench.meters.value_checks import ValueChecks

TOLERANCE = 0.02


def count_flags(result: MacsCount, values: ValueChecks) -> list[Flag]:
    """Everything that a trace tells about its own limits."""
    return [*_unknown_flags(result), *_masking_flags(values), *_convention_flags(result), *_input_flags(result)]


def _unknown_flags(result: MacsCount) -> list[Flag]:
    flags = []
    for row in result.uncounted:
        where = ", ".join(path or "the root" for path in row["module_paths"][:4])
        share = f", {row['time_share']:.0%} of the time" if row["time_share"] else ""
        text = (
            f"{row['operator']} has no rule: {row['calls']} calls in {where}{share}; every total is at least what it "
            f'says. Tell its products with @bench.counting_rule("{row["operator"]}") in the module of the model'
        )
        flags.append(flag("uncounted_operator", "warn", text))
    return flags


def _convention_flags(result: MacsCount) -> list[Flag]:
    flags = []
    if result.causal_unused_macs:
        text = (
            "causal attention is counted in full; a kernel that skips the masked half does "
            f"{_giga(result.causal_unused_macs)} GMACs less"
        )
        flags.append(flag("causal_in_full", "info", text))
    if any(row["operator"] == "higher_order::flex_attention" for row in result.operators):
        text = "flex_attention is counted in full: what its block mask skips is not deducted"
        flags.append(flag("flex_in_full", "info", text))
    if result.dense_equivalent_macs != result.executed_macs:
        text = (
            f"sparse products: {_giga(result.executed_macs)} GMACs executed, dense equivalent "
            f"{_giga(result.dense_equivalent_macs)}"
        )
        flags.append(flag("sparse", "info", text))
    if result.elementwise_products > TOLERANCE * result.executed_macs:
        text = (
            f"{_giga(result.elementwise_products)} G elementwise products are summed: a matrix product written out; "
            "they stand under vector operations, not under MACs"
        )
        flags.append(flag("products_as_elementwise", "warn", text))
    if len(result.macs_by_dtype) > 1:
        parts = ", ".join(f"{name} {_giga(value)}" for name, value in result.macs_by_dtype.items())
        flags.append(flag("mixed_precision", "info", f"GMACs by dtype: {parts}; compare bit operations, not their sum"))
    return flags


def _input_flags(result: MacsCount) -> list[Flag]:
    if not result.dynamic:
        return []
    text = "an operator's result size or value depends on the data: other inputs may cost more or less (count_over)"
    return [flag("data_dependent", "warn", text)]


def _giga(value: float) -> str:
    return f"{value / 1e9:.4g}"


def _masking_flags(values: ValueChecks) -> list[Flag]:
    flags = []
    rows = {path: share for path, share in values.zero_rows().items() if share >= 0.02}
    if rows:
        path, share = max(rows.items(), key=lambda item: item[1])
        text = (
            f"{share:.0%} of the rows entering {path or 'the root'} are zero ({len(rows)} places in all): masked or "
            "padded tokens are computed all the same; removing them would save work, masking does not"
        )
        flags.append(flag("masked_tokens", "warn", text))
    scores = {path: share for path, share in values.masked_scores().items() if share >= 0.02}
    if scores:
        path, share = max(scores.items(), key=lambda item: item[1])
        text = (
            f"a mask rules out {share:.0%} of the attention scores in {path or 'the root'}; they are computed and "
            "counted"
        )
        flags.append(flag("masked_attention", "info", text))
    zeros, total = values.zero_weight_share()
    if zeros >= 0.05 and total >= 64:
        text = f"{zeros:.0%} of the multiplied weights are zero but stored dense: any saving is theoretical only"
        flags.append(flag("masked_weights", "warn", text))
    return flags


def outside_flags(escapes: Counter[str], gaps: dict[str, float]) -> list[Flag]:
    """Tensors handed out of torch, and processor time that no operator explains."""
    flags = []
    if escapes:
        parts = ", ".join(f"{what} x{n}" for what, n in escapes.most_common(4))
        text = f"tensors leave torch during the forward ({parts}); what happens to them there is not counted"
        flags.append(flag("outside_torch", "warn", text))
    for path, seconds in sorted(gaps.items(), key=lambda item: -item[1])[:3]:
        text = (
            f"{seconds * 1e3:.0f} ms of processor time in {path or 'the root'} belong to no operator: work outside "
            "torch"
        )
        flags.append(flag("unexplained_time", "warn", text))
    return flags


def foreign_flags(module: nn.Module, foreign: list[tuple[str, Tensor]]) -> list[Flag]:
    """Tensors that are multiplied and were there before, but are neither parameter, buffer nor input."""
    if not foreign:
        return []
    held = {id(item.value): item.path for item in hidden_tensors(module)}
    parts = []
    for path, tensor in foreign[:4]:
        where = held.get(id(tensor)) or f"used in {path or 'the root'}"
        parts.append(f"{'x'.join(map(str, tensor.shape)) or 'a number'} ({where})")
    text = (
        f"{len(foreign)} tensors that are multiplied are neither parameters, buffers nor inputs: {', '.join(parts)}; "
        "their products are counted, but no count of parameters or size holds them"
    )
    return [flag("unregistered_weights", "info", text)]


def thread_flags(operators: list[str]) -> list[Flag]:
    """Operators that ran in threads which no counter can follow."""
    if not operators:
        return []
    shown = ", ".join(operators[:5]) + (", ..." if len(operators) > 5 else "")
    text = (
        f"threads that were running before the forward execute operators during it ({shown}): they are not counted, "
        "and every total is at least what it says. Start the thread or submit to a ThreadPoolExecutor inside forward"
    )
    return [flag("other_threads", "warn", text)]


def eager_module(module: nn.Module) -> nn.Module:
    """The module behind those that `torch.compile` made; others as they are, whatever attributes they hand on."""
    while type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
        module = module._modules["_orig_mod"]  # type: ignore[assignment]
    return module


def unwrapped(module: nn.Module) -> tuple[nn.Module, list[Flag]]:
    """The eager module behind a compiled one, and flags that say what kind of module was given."""
    flags: list[Flag] = []
    eager = eager_module(module)
    if eager is not module:
        module = eager
        flags.append(flag("compiled", "info", "the module is compiled; its eager graph was counted"))
    scripted = [
        name or "the module" for name, child in module.named_modules() if isinstance(child, torch.jit.ScriptModule)
    ]
    if scripted:
        flags.append(
            flag("scripted", "info", f"{scripted[0]} is TorchScript; its operators carry no inner module path")
        )
        fused = sorted(_fused_nodes(module))
        if fused:
            text = (
                f"the script holds fused nodes that no counter can see ({', '.join(fused)}); counts, parameters and "
                "size are at least what they say: measure the module before it is optimised for inference"
            )
            flags.append(flag("opaque_script", "warn", text))
    return module, flags


_OPAQUE = (
    "prim::MKLDNNGroup",
    "prim::mkldnn_convolution",
    "prim::TensorExprGroup",
    "prim::FusionGroup",
    "prim::CudaFusionGroup",
    "mkldnn_prepacked::conv2d_run",
    "prepacked::linear_clamp_run",
    "prepacked::conv2d_clamp_run",
)


def _fused_nodes(module: nn.Module) -> set[str]:
    found: set[str] = set()
    for child in module.modules():
        if isinstance(child, torch.jit.ScriptModule):
            try:
                graph = child.inlined_graph
            except (AttributeError, RuntimeError):
                continue
            found |= {name for name in _OPAQUE if graph.findAllNodes(name, recurse=True)}  # type: ignore[attr-defined]
    return found
