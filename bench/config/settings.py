"""The vocabulary of setting types for models and methods: plain annotations that carry a range.

A builder or method annotates its keyword parameters with these (or with plain Python types). The planner reads the
annotations without importing torch, so that a wrong setting is refused in half a second.
"""

from __future__ import annotations

from typing import Annotated, Literal, Union

from pydantic import Field

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
KeepRate = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
Blocks = Annotated[list[PositiveInt], Field(min_length=1)]
Counts = Annotated[list[Count], Field(min_length=1)]

#: Names that an annotation in a models or methods module may use and be checked before torch is imported.
VOCABULARY: dict[str, object] = {
    "Annotated": Annotated, "Field": Field, "Literal": Literal, "Union": Union,
    "Rate": Rate, "KeepRate": KeepRate, "Positive": Positive, "Count": Count, "PositiveInt": PositiveInt,
    "Blocks": Blocks, "Counts": Counts,
    "int": int, "float": float, "bool": bool, "str": str, "list": list, "tuple": tuple, "dict": dict,
}  # fmt: skip
