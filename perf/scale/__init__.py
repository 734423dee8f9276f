"""How time and memory grow with records, cases, machines of a pool and runs in MLflow; see `perf.scale.__main__`."""
