"""Matrix products written out as elementwise ones: products or squares that are then summed, however they get there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from bench.meters.products import Call


def _names(text: str) -> frozenset[str]:
    return frozenset(f"aten::{word}{end}" for word in text.split() for end in ("", "_"))


_MULTIPLY = _names("mul square")
_POWER = _names("pow")
_MULTIPLY_AND_ADD = _names("addcmul")
_SUM = _names("sum mean nansum cumsum")
_SCATTER = _names("index_add scatter_add scatter_reduce index_reduce index_put")
_ADD = _names("add sub")
#: What a product passes through and stays one: copies, casts, and what is linear in it.
_PASS = _names(
    "clone contiguous copy _to_copy neg div masked_fill where cat stack constant_pad_nd index index_select gather "
    "flip roll repeat"
)
#: Products that make a sum of them a matrix product: two are a complex number's, a rotation's, a scale and a shift.
_MANY = 3
_NORM = _names("linalg_vector_norm norm dist")


class WrittenOut:
    """Follows results that are elementwise products and tells how many multiply-accumulates their sums stand for.

    A result is followed by its storage, so that views keep what it is.
    """

    def __init__(self) -> None:
        self._products: dict[int, StorageWeakRef] = {}
        self._differences: dict[int, StorageWeakRef] = {}
        self._sums: dict[int, tuple[StorageWeakRef, int]] = {}

    def look(self, operator: str, call: Call) -> int:
        """Products that this call sums; 0 where it sums none."""
        given = [value for value in _flat(call.args) if _is_plain(value)]
        if not given or not _is_plain(call.out):
            return 0
        if operator in _MULTIPLY_AND_ADD:
            return self._added(given[0], call.out)
        if operator in _ADD:
            return self._add(given, call.out)
        summed = self._summed(operator, call, given)
        if summed:
            return summed
        is_square = operator in _POWER and not isinstance(call.args[1], Tensor) and call.args[1] == 2
        is_product = operator in _MULTIPLY or is_square
        if is_product or (operator in _PASS and any(self._is(self._products, value) for value in given)):
            self._products[_key(call.out)] = _reference(call.out)
        else:
            self._products.pop(_key(call.out), None)
        return 0

    def _summed(self, operator: str, call: Call, given: list[Tensor]) -> int:
        """Elements of a product or of a difference that the call adds up."""
        if operator in _SUM and self._is(self._products, given[0]):
            return given[0].numel()
        if operator in _NORM and self._is(self._differences, given[0]) and _is_euclidean(call):
            return given[0].numel()
        if operator in _SCATTER:
            return next((value.numel() for value in given[1:] if self._is(self._products, value)), 0)
        return 0

    def _add(self, given: list[Tensor], out: Tensor) -> int:
        products = [value for value in given if self._is(self._products, value)]
        totals = [value for value in given if self._terms(value)]
        if totals and len(products) > 1:
            self._products.pop(_key(totals[0]), None)
            return self._added(totals[0], out)
        others = [value for value in given if not any(value is one for one in products)]
        if len(products) == 1 and others:
            return self._added(others[0], out)
        if products:
            self._products[_key(out)] = _reference(out)
            self._sums[_key(out)] = (_reference(out), len(products))
        elif len(given) == 2 and out.numel() > max(value.numel() for value in given):
            self._differences[_key(out)] = _reference(out)
        return 0

    def _added(self, total: Tensor, out: Tensor) -> int:
        """One more product in a sum: the one that makes it a product in disguise brings those before it."""
        terms = self._terms(total)
        self._sums[_key(out)] = (_reference(out), terms + 1)
        self._products.pop(_key(out), None)
        if terms + 1 < _MANY:
            return 0
        return out.numel() * (_MANY if terms + 1 == _MANY else 1)

    def _terms(self, tensor: Tensor) -> int:
        """How many products were added up in a tensor."""
        reference, terms = self._sums.get(_key(tensor), (None, 0))
        return 0 if reference is None or reference.expired() else terms

    @staticmethod
    def _is(kept: dict[int, StorageWeakRef], tensor: Tensor) -> bool:
        reference = kept.get(_key(tensor))
        return reference is not None and not reference.expired()


def _flat(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, list | tuple) else [value]
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_nested


def _is_euclidean(call: Call) -> bool:
    order = call.args[1] if len(call.args) > 1 else 2
    return order is None or order == 2


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _reference(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
