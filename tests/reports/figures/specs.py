"""What every spec must satisfy, whatever it shows."""

import json
import re

import plotly.graph_objects as go

from reports.figures.figure import SEPARATOR, Figure
from reports.figures.theme import COLOURS


def strings(value):
    """All strings anywhere in plain JSON data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)


def colours(value, under=False):
    """All strings that stand under a key that ends in "color"."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from colours(part, key.endswith("color"))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from colours(part, under)
    elif under and isinstance(value, str):
        yield value


def check(figure: Figure) -> Figure:
    """The figure, after checking that it is complete, plain JSON that plotly accepts, in both themes, and safe."""
    assert figure.title and figure.how_to_read
    assert re.fullmatch(r"[a-z0-9-]+", figure.id)
    keys = {SEPARATOR.join((*key,)) for key in _choices(figure)}
    assert set(figure.views) <= keys
    if figure.controls and figure.views:
        assert next(iter(figure.views)) == SEPARATOR.join(control.options[0] for control in figure.controls)
    for key, spec in figure.views.items():
        json.loads(json.dumps(spec, allow_nan=False))
        assert set(colours(spec)) <= set(COLOURS), "only colour roles"
        assert all(trace["type"] in {"bar", "scatter", "box", "violin"} for trace in spec["data"])
        for part in ("xaxis", "yaxis"):
            numbered = spec["layout"][part].get("showticklabels", True)
            assert spec["layout"][part]["title"]["text"] or not numbered
        for theme in ("light", "dark"):
            drawn = figure.drawn(*key.split(SEPARATOR) if key else [], theme=theme)
            assert not any(text.startswith("@") for text in colours(drawn))
            go.Figure(drawn)  # raises on unknown properties
        hovers = [item[1] for trace in spec["data"] if trace.get("meta") == "hover" for item in trace["customdata"]]
        assert all(0 <= place < len(figure.hover) for place in hovers)
        rows = [item[0] for trace in spec["data"] for item in trace.get("customdata") or []]
        assert all(row is None or 0 <= row < len(figure.table) for row in rows)
    assert not figure.table.isna().to_numpy().any() or figure.table.dtypes.eq(object).all()
    return figure


def _choices(figure):
    from itertools import product

    return product(*(control.options for control in figure.controls)) if figure.controls else [("",)]
