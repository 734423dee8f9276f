"""The class of every operator, by exact name: compute, vector, move, view; whatever is not listed is unknown.

No name is matched by a part of it. The two groups that are not spelled out name by name are ATen's own operators that
carry torch's `pointwise` tag and those whose schema returns an alias of an argument (views).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from bench.meters import products as p
from bench.meters.products import Call, Formula

Kind = Literal["compute", "vector", "move", "view", "unknown"]
Reads = Literal["all", "result", "none"]
VectorCost = Callable[[Call], int]


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """How one overload is counted.

    `reads` says which bytes are compulsory: "all" inputs, as many as the "result" (a gather), or "none" (a fill).
    `written` are the positions of arguments written in place, `overwritten` means their old values are not read.
    """

    kind: Kind
    formula: Formula | None = None
    vector: VectorCost | None = None
    reads: Reads = "all"
    written: tuple[int, ...] = ()
    overwritten: bool = False
    data_dependent: bool = False
    norm: str | None = None


def _words(text: str, namespace: str = "aten") -> frozenset[str]:
    return frozenset(f"{namespace}::{word}" for word in text.split())


# ---------------------------------------------------------------- compute
_FLASH_OFFSETS = ("cum_seq_q", "cum_seq_k")
_EFFICIENT_OFFSETS = ("cu_seqlens_q", "cu_seqlens_k")


def _table(*groups: tuple[str, Formula]) -> dict[str, Formula]:
    return {name if "::" in name else f"aten::{name}": formula for names, formula in groups for name in names.split()}


COMPUTE: dict[str, Formula] = _table(
    ("mm bmm _int_mm _scaled_mm _sparse_sparse_matmul hspmm _sparse_mm_reduce_impl matmul", p.matrices(0)),
    ("addmm baddbmm addbmm _sparse_addmm _addmm_activation sparse_sampled_addmm", p.matrices(1)),
    ("mv dot vdot", p.vectors(0)),
    ("addmv", p.vectors(1)),
    ("addr", p.outer),
    ("linear mkldnn_linear mkldnn::_linear_pointwise", p.linear),
    ("_grouped_mm _scaled_grouped_mm", p.grouped),
    ("_weight_int8pack_mm", p.contraction(8)),
    ("_weight_int4pack_mm _weight_int4pack_mm_for_cpu _weight_int4pack_mm_with_scales_and_zeros", p.contraction(4)),
    ("_dyn_quant_matmul_4bit", p.contraction(4, 8)),
    ("_mixed_dtypes_linear mkl::_mkl_linear", p.contraction()),
    ("_sparse_semi_structured_linear", p.half_dense(lambda call: call.args[0].shape[-1])),
    ("_sparse_semi_structured_mm", p.half_dense(lambda call: call.args[2].shape[0])),
    ("_sparse_semi_structured_addmm", p.half_dense(lambda call: call.args[3].shape[0])),
    ("_cslt_sparse_mm", p.half_dense(lambda call: call.args[1].shape[0])),
    (
        (
            "convolution _convolution convolution_overrideable conv2d conv_depthwise3d _conv_depthwise2d "
            "mkldnn_convolution cudnn_convolution cudnn_convolution_transpose cudnn_convolution_relu "
            "cudnn_convolution_add_relu miopen_convolution miopen_convolution_transpose miopen_depthwise_convolution "
            "miopen_convolution_relu miopen_convolution_add_relu _mps_convolution _mps_convolution_transpose "
            "_slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d slow_conv_transpose2d "
            "slow_conv_transpose3d _nnpack_spatial_convolution mkldnn::_convolution_pointwise "
            "mkldnn::_convolution_transpose_pointwise"
        ),
        p.convolution,
    ),
    ("convolution_backward convolution_backward_overrideable", p.convolution_backward),
    ("conv_tbc", p.convolution_tbc),
    (
        (
            "scaled_dot_product_attention _scaled_dot_product_flash_attention "
            "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
            "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable "
            "_scaled_dot_product_attention_math_for_mps"
        ),
        p.attention,
    ),
    (
        (
            "_scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward "
            "_scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward "
            "_scaled_dot_product_fused_attention_overrideable_backward"
        ),
        p.attention_backward,
    ),
    ("_flash_attention_forward _cudnn_attention_forward", p.packed_attention(_FLASH_OFFSETS)),
    ("_efficient_attention_forward", p.packed_attention(_EFFICIENT_OFFSETS)),
    ("_flash_attention_backward _cudnn_attention_backward", p.packed_attention(_FLASH_OFFSETS, (3, 2))),
    ("_efficient_attention_backward", p.packed_attention(_EFFICIENT_OFFSETS, (3, 2))),
    ("_native_multi_head_attention _triton_multi_head_attention", p.native_attention),
    ("_transformer_encoder_layer_fwd", p.encoder_layer),
    ("mkldnn_rnn_layer", p.recurrent_layer(1)),
    ("mkldnn_rnn_layer_backward", p.recurrent_layer(2)),
    ("_cudnn_rnn miopen_rnn", p.recurrent_stack(1)),
    ("_cudnn_rnn_backward miopen_rnn_backward", p.recurrent_stack(2)),
    ("_cdist_forward _euclidean_dist", p.distances),
    ("_cdist_backward", p.distances_backward),
    ("_pdist_forward", p.pairwise_distances),
    ("_trilinear", p.trilinear),
    ("affine_grid_generator", p.affine_grid),
    ("_fft_r2c _fft_c2r _fft_c2c", p.fourier),
    ("quantized_lstm", p.quantized_recurrent(4)),
    ("quantized_gru", p.quantized_recurrent(3)),
    (
        (
            "quantized::quantized_lstm_cell_dynamic quantized::quantized_gru_cell_dynamic "
            "quantized::quantized_rnn_relu_cell_dynamic quantized::quantized_rnn_tanh_cell_dynamic"
        ),
        p.packed_cell,
    ),
    (
        (
            "quantized::linear quantized::linear_relu quantized::linear_leaky_relu quantized::linear_tanh "
            "quantized::linear_dynamic quantized::linear_relu_dynamic"
        ),
        p.packed_linear((8, 8)),
    ),
    ("quantized::linear_dynamic_fp16 quantized::linear_relu_dynamic_fp16", p.packed_linear((32, 16))),
    ("quantized::conv1d quantized::conv1d_relu quantized::conv1d_dynamic", p.packed_convolution("conv1d_unpack")),
    (
        (
            "quantized::conv2d quantized::conv2d_relu quantized::conv2d_add quantized::conv2d_add_relu "
            "quantized::conv2d_dynamic"
        ),
        p.packed_convolution("conv2d_unpack"),
    ),
    ("quantized::conv3d quantized::conv3d_relu quantized::conv3d_dynamic", p.packed_convolution("conv3d_unpack")),
)


# ---------------------------------------------------------------- vector
def _input_elements(call: Call) -> int:
    first = call.args[0]
    if isinstance(first, (list, tuple)):
        return sum(_elements(item) for item in first)
    return _elements(first)


def _elements(tensor: Tensor) -> int:
    return p.stored_values(tensor).numel() if p.is_sparse(tensor) else tensor.numel()


def _output_elements(call: Call) -> int:
    out = call.out
    if isinstance(out, Tensor):
        return _elements(out)
    if isinstance(out, (list, tuple)):
        return next((_elements(item) for item in out if isinstance(item, Tensor)), 0)
    return max((_elements(item) for item in call.args if isinstance(item, Tensor)), default=0)


def _per_input(factor: int) -> VectorCost:
    return lambda call: factor * _input_elements(call)


def _per_output(factor: int) -> VectorCost:
    return lambda call: factor * _output_elements(call)


def _affine_norm(plain: int, argument: str) -> VectorCost:
    """`plain` operations per element, and two more where a scale and shift follow."""
    return lambda call: (plain + (2 if call.arg(argument) is not None else 0)) * _elements(call.args[0])


def _batch_norm(call: Call) -> int:
    """A folded scale and shift (2) in inference; statistics and normalisation (7) in training."""
    names = {argument.name for argument in call.func._schema.arguments}
    training = "training" not in names or bool(call.arg("training"))
    return (7 if training else 2) * _elements(call.args[0])


def _window(call: Call) -> int:
    """Pooling: every output looks at a whole window."""
    return _output_elements(call) * math.prod(_as_window(call))


def _as_window(call: Call) -> list[int]:
    size = list(call.arg("kernel_size"))
    spatial = call.args[0].dim() - 2 if call.args[0].dim() > 3 else 2
    return size if len(size) > 1 else size * spatial


def _sorting(call: Call) -> int:
    """Comparisons of a sort, n log2 n, along the sorted dimension."""
    tensor = call.args[0]
    longest = max(tensor.shape, default=1)
    return tensor.numel() * max(1, math.ceil(math.log2(max(longest, 2))))


_VECTOR_GROUPS: tuple[tuple[str, VectorCost], ...] = (
    (
        (
            "sum mean prod amax amin max min argmax argmin any all norm linalg_vector_norm count_nonzero nansum "
            "nanmedian median mode kthvalue aminmax trace cumsum cumprod logcumsumexp cummax cummin _cummax_helper "
            "_cummin_helper logsumexp dist _sparse_csr_sum _sparse_csr_prod equal allclose histc bincount native_norm "
            "var_mean std_mean var std hash_tensor _is_all_true _is_any_true segment_reduce isin bucketize "
            "searchsorted _aminmax renorm embedding_renorm"
        ),
        _per_input(1),
    ),
    (
        "_softmax _log_softmax _safe_softmax _masked_softmax _nested_tensor_softmax_with_shape",
        _per_input(p.SOFTMAX_OPS),
    ),
    ("_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward", _per_input(4)),
    ("native_layer_norm", _affine_norm(5, "weight")),
    ("native_group_norm", _affine_norm(5, "weight")),
    ("_fused_rms_norm", _affine_norm(3, "weight")),
    (
        (
            "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
            "miopen_batch_norm _batch_norm_no_update _batch_norm_with_update quantized_batch_norm"
        ),
        _batch_norm,
    ),
    (
        (
            "native_layer_norm_backward native_batch_norm_backward native_group_norm_backward batch_norm_backward "
            "cudnn_batch_norm_backward miopen_batch_norm_backward _fused_rms_norm_backward"
        ),
        _per_input(8),
    ),
    (
        (
            "avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices mkldnn_max_pool2d mkldnn_max_pool3d "
            "quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d"
        ),
        _window,
    ),
    (
        (
            "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d "
            "mkldnn_adaptive_avg_pool2d fractional_max_pool2d fractional_max_pool3d"
        ),
        _per_input(1),
    ),
    (
        (
            "avg_pool2d_backward avg_pool3d_backward max_pool2d_with_indices_backward max_pool3d_with_indices_backward "
            "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward "
            "adaptive_max_pool3d_backward max_unpool2d max_unpool3d"
        ),
        _per_output(1),
    ),
    ("upsample_linear1d _upsample_nearest_exact1d", _per_output(2)),
    ("upsample_bilinear2d _upsample_bilinear2d_aa grid_sampler_2d cudnn_grid_sampler", _per_output(4)),
    ("_grid_sampler_2d_cpu_fallback", _per_output(4)),
    ("upsample_trilinear3d grid_sampler_3d", _per_output(8)),
    ("upsample_bicubic2d _upsample_bicubic2d_aa", _per_output(16)),
    (
        (
            "upsample_linear1d_backward upsample_bilinear2d_backward upsample_trilinear3d_backward "
            "upsample_bicubic2d_backward upsample_nearest1d_backward upsample_nearest2d_backward "
            "upsample_nearest3d_backward _upsample_bilinear2d_aa_backward _upsample_bicubic2d_aa_backward "
            "grid_sampler_2d_backward grid_sampler_3d_backward"
        ),
        _per_output(4),
    ),
    ("sort topk", _sorting),
    ("_unique2 _unique unique_dim unique_consecutive unique_dim_consecutive", _sorting),
    ("_embedding_bag _embedding_bag_forward_only", lambda call: _elements(call.args[1]) * call.args[0].shape[-1]),
    (
        (
            "glu glu_backward mse_loss mse_loss_backward nll_loss_forward nll_loss_backward nll_loss2d_forward "
            "nll_loss2d_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward "
            "binary_cross_entropy binary_cross_entropy_backward binary_cross_entropy_with_logits soft_margin_loss "
            "soft_margin_loss_backward multi_margin_loss multilabel_margin_loss_forward _ctc_loss elu_backward "
            "gelu_backward hardshrink_backward hardsigmoid_backward hardswish_backward hardtanh_backward "
            "leaky_relu_backward log_sigmoid_forward log_sigmoid_backward sigmoid_backward silu_backward "
            "softplus_backward softshrink_backward tanh_backward threshold_backward mish_backward _prelu_kernel "
            "_prelu_kernel_backward rrelu_with_noise rrelu_with_noise_backward _weight_norm_interface "
            "_weight_norm_interface_backward"
        ),
        _per_input(1),
    ),
    (
        (
            "_euclidean_norm complex polar floor_divide heaviside hardswish fake_quantize_per_channel_affine_cachemask "
            "fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
            "_fused_moving_avg_obs_fq_helper native_dropout _fused_dropout _masked_scale bernoulli normal uniform "
            "random exponential rand randn randint randperm rand_like randn_like randint_like multinomial poisson "
            "linspace logspace tril triu cross linalg_cross quantize_per_tensor quantize_per_channel "
            "quantize_per_tensor_dynamic dequantize int_repr masked_fill copysign _foobar index_add scatter_add "
            "scatter_reduce index_reduce embedding_dense_backward _embedding_bag_backward "
            "_embedding_bag_dense_backward select_backward slice_backward _thnn_fused_lstm_cell _thnn_fused_gru_cell "
            "_thnn_fused_lstm_cell_backward_impl _thnn_fused_gru_cell_backward _transform_bias_rescale_qkv _add_relu "
            "diff histogram reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward "
            "replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward unfold_backward col2im "
            "_coalesce quantized::add quantized::add_relu quantized::mul quantized::mul_relu quantized::add_scalar "
            "quantized::mul_scalar quantized::leaky_relu quantized::hardswish quantized::sigmoid quantized::relu6 "
            "quantized::clamp quantized::celu quantized::threshold quantized_decomposed::quantize_per_tensor "
            "quantized_decomposed::dequantize_per_tensor quantized_decomposed::quantize_per_channel "
            "quantized_decomposed::dequantize_per_channel"
        ),
        _per_output(1),
    ),
    (
        " ".join(
            f"_foreach_{word}"
            for word in [
                "abs",
                "acos",
                "add",
                "addcdiv",
                "addcmul",
                "asin",
                "atan",
                "ceil",
                "clamp_max",
                "clamp_min",
                "cos",
                "cosh",
                "div",
                "erf",
                "erfc",
                "exp",
                "expm1",
                "floor",
                "frac",
                "lerp",
                "lgamma",
                "log",
                "log10",
                "log1p",
                "log2",
                "max",
                "maximum",
                "minimum",
                "mul",
                "neg",
                "norm",
                "pow",
                "reciprocal",
                "round",
                "rsqrt",
                "sigmoid",
                "sign",
                "sin",
                "sinh",
                "sqrt",
                "sub",
                "tan",
                "tanh",
                "trunc",
            ]
        ),
        _per_input(1),
    ),
    ("quantized::batch_norm1d quantized::batch_norm2d quantized::batch_norm3d quantized::batch_norm", _per_output(2)),
    ("quantized::layer_norm quantized::group_norm quantized::instance_norm", _per_output(p.LAYER_NORM_OPS)),
    ("quantized::softmax", _per_output(p.SOFTMAX_OPS)),
)
VECTOR: dict[str, VectorCost] = {
    name if "::" in name else f"aten::{name}": cost for names, cost in _VECTOR_GROUPS for name in names.split()
}

# ---------------------------------------------------------------- move and view
#: Copies: every input is read and the result written, nothing is computed.
COPIES = _words(
    "_to_copy clone contiguous copy cat stack _stack repeat roll flip rot90 constant_pad_nd reflection_pad1d "
    "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d pixel_shuffle "
    "pixel_unshuffle channel_shuffle im2col index_copy index_fill index_put _index_put_impl _unsafe_index_put scatter "
    "masked_scatter put slice_scatter select_scatter diagonal_scatter as_strided_scatter unsafe_split "
    "unsafe_split_with_sizes split_with_sizes_copy split_copy to_mkldnn _to_dense _to_sparse _to_sparse_csr "
    "_to_sparse_csc _to_sparse_bsr _to_sparse_bsc to_padded_tensor _nested_tensor_from_mask "
    "_nested_tensor_from_mask_left_aligned _nested_from_padded _nested_tensor_from_tensor_list "
    "_jagged_to_padded_dense_forward _padded_dense_to_jagged_forward _mkldnn_reshape _mkldnn_transpose "
    "mkldnn_reorder_conv2d_weight _pack_padded_sequence _pin_memory lift diag_embed block_diag sparse_mask "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d _upsample_nearest_exact3d "
    "_sparse_semi_structured_tile _cslt_compress _convert_weight_to_int4pack _convert_weight_to_int4pack_for_cpu "
    "_convert_indices_from_coo_to_csr _convert_indices_from_csr_to_coo expand_copy permute_copy view_copy "
    "transpose_copy slice_copy select_copy squeeze_copy unsqueeze_copy as_strided_copy _neg_view_copy _conj_copy "
    "detach_copy unbind_copy t_copy alias_copy _reshape_copy complex_copy view_as_real_copy view_as_complex_copy"
) | _words("cat cat_relu", "quantized")

#: Gathers: only the rows that are picked are read, besides the indices.
GATHERS = _words(
    "embedding index index_select gather take masked_select repeat_interleave _unsafe_index _unsafe_masked_index "
    "nonzero nonzero_static"
)

#: Fills: nothing is read.
FILLS = _words(
    "_foreach_zero zeros ones full zeros_like ones_like full_like new_zeros new_ones new_full fill zero arange eye "
    "tril_indices triu_indices scalar_tensor hann_window hamming_window blackman_window bartlett_window kaiser_window "
    "fft_fftfreq fft_rfftfreq _efficientzerotensor"
)

#: In-place forms of these read nothing of what they overwrite.
OVERWRITING = FILLS | _words("copy uniform normal bernoulli random exponential log_normal cauchy geometric")

#: Bookkeeping and aliasing that touches no element.
FREE = _words(
    "empty empty_like empty_strided new_empty new_empty_strided empty_permuted empty_quantized _unsafe_view "
    "_local_scalar_dense item is_same_size is_pinned _assert_async _assert_tensor_metadata _assert_scalar "
    "_functional_assert_async _fused_sdp_choice _nested_tensor_size _nested_tensor_strides "
    "_nested_tensor_storage_offsets sym_size sym_stride sym_numel sym_storage_offset sym_is_contiguous is_contiguous "
    "is_strides_like_format is_non_overlapping_and_dense stride size numel dim storage_offset resize resize_ "
    "resize_as_ resize_as_sparse_ set set_ record_stream _resize_output_ q_scale q_zero_point qscheme "
    "q_per_channel_scales q_per_channel_zero_points q_per_channel_axis sparse_dim dense_dim _nnz is_coalesced "
    "_coalesced_ _coalesced _dimI _dimV sparse_compressed_tensor _sparse_compressed_tensor_unsafe "
    "_sparse_coo_tensor_unsafe sparse_coo_tensor _sparse_coo_tensor_with_dims "
    "_sparse_coo_tensor_with_dims_and_tensors _sparse_compressed_tensor_with_dims _validate_compressed_sparse_indices "
    "_validate_sparse_coo_tensor_args _validate_sparse_csr_tensor_args _has_same_storage_numel _nested_get_offsets "
    "_nested_get_lengths _nested_get_ragged_idx _nested_get_min_seqlen _nested_get_max_seqlen "
    "_nested_get_jagged_dummy _nested_compute_contiguous_strides_offsets squeeze_ unsqueeze_ t_ transpose_ detach_ "
    "as_strided_ swapaxes_ swapdims_ sym_constrain_range_for_size sym_constrain_range _linalg_check_errors "
    "_conj_physical_view_ _make_dep_token _print _cudnn_init_dropout_state _lazy_clone"
) | frozenset(
    {
        "prim::device",
        "prim::layout",
        "prim::dtype",
        "profiler::_record_function_enter_new",
        "profiler::_record_function_exit",
    }
)

#: Those of them that give new memory.
ALLOCATIONS = _words("empty empty_like empty_strided new_empty new_empty_strided empty_permuted empty_quantized")

#: Operators whose result size or value can steer what runs next.
STEERING = _words(
    "_local_scalar_dense item nonzero masked_select _unique2 _unique unique_dim unique_consecutive is_nonzero equal"
)

_custom: dict[str, Formula] = {}


def register(name: str, formula: Formula) -> None:
    """The MAC formula of an operator outside this table, by its qualified name, such as `mylib::attention`."""
    _custom[name.replace(".", "::", 1) if "::" not in name else name] = formula
    rule_of.cache_clear()


def custom_names() -> tuple[str, ...]:
    """Qualified names that `register` has added."""
    return tuple(_custom)


def custom_formula(name: str) -> Formula | None:
    """The registered formula of a qualified operator name."""
    return _custom.get(name)


@cache
def written_places(func: Any) -> tuple[int, ...]:
    """Positions of the arguments that an overload writes in place, including statistics its schema does not state."""
    if func._schema.name in ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm"):
        return (3, 4)
    return _written(func._schema)


def _written(schema: Any) -> tuple[int, ...]:
    return tuple(
        index
        for index, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write and not argument.is_out
    )


def _base_name(name: str, in_place: bool) -> str:
    return name[:-1] if in_place and name.endswith("_") else name


NORMS = {
    "aten::native_layer_norm": "layer_norm",
    "aten::native_group_norm": "group_norm",
    "aten::native_batch_norm": "batch_norm",
    "aten::_native_batch_norm_legit": "batch_norm",
    "aten::_native_batch_norm_legit_no_training": "batch_norm",
    "aten::cudnn_batch_norm": "batch_norm",
    "aten::miopen_batch_norm": "batch_norm",
    "aten::_batch_norm_no_update": "batch_norm",
    "aten::_batch_norm_with_update": "batch_norm",
}


@cache
def rule_of(func: Any) -> OperatorRule:
    """The rule of one operator overload; kind "unknown" if it is in no table."""
    schema = func._schema
    written = _written(schema)
    if schema.name in _custom:
        return OperatorRule("compute", _custom[schema.name], written=written)
    if schema.name in FREE:
        return OperatorRule("view", data_dependent=schema.name in STEERING)
    name = _base_name(schema.name, bool(written))
    return _listed(name, written) or _by_schema(func, name, written)


def _listed(name: str, written: tuple[int, ...]) -> OperatorRule | None:
    common: dict[str, Any] = {
        "written": written,
        "overwritten": name in OVERWRITING,
        "data_dependent": name in STEERING,
    }
    if name in COMPUTE:
        return OperatorRule("compute", COMPUTE[name], **common)
    if name in VECTOR:
        return OperatorRule("vector", vector=VECTOR[name], norm=NORMS.get(name), **common)
    moves: tuple[tuple[frozenset[str], Reads], ...] = ((COPIES, "all"), (GATHERS, "result"), (FILLS, "none"))
    return next((OperatorRule("move", reads=reads, **common) for names, reads in moves if name in names), None)


def _by_schema(func: Any, name: str, written: tuple[int, ...]) -> OperatorRule:
    """ATen's views (schema aliasing) and pointwise operators (torch's tag); everything else is unknown."""
    if func.namespace != "aten":
        return OperatorRule("unknown", written=written)
    if getattr(func, "is_view", False):
        return OperatorRule("view")
    base = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    overloads = [getattr(base, o) for o in base.overloads()] if base is not None else []
    if torch.Tag.pointwise in func.tags or any(torch.Tag.pointwise in overload.tags for overload in overloads):
        return OperatorRule("vector", vector=_per_output(1), written=written)
    return OperatorRule("unknown", written=written)
