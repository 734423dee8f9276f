"""The entry point: the one place that knows every room and wires them together."""
