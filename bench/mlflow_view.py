"""Addresses that open MLflow's page on the useful view."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def view_url(base: str, experiment_id: str | None, search: str) -> str:
    """The cases that match `search`, side by side as charts, fastest first.

    Children are collapsed under their parent unless something is searched for, so the search is part of the address.
    """
    query = {
        "searchFilter": search,
        "orderByKey": "metrics.`latency/latency_ms`",
        "orderByAsc": "true",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "compareRunsMode": "CHART",
    }
    return f"{base}/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"
