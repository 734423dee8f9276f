"""The mirror in MLflow; the one room that imports it."""
