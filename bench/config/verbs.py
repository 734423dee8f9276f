"""The verbs of the command line: what `job=` may name; apart from the schema, which takes pydantic to import."""

JOBS = ("run", "plan", "report", "reproduce", "compare", "bundle", "verify", "calibrate", "doctor", "ui", "list")
