"""Words of the command line, `job=` and `retry=`; apart from the schema, which takes pydantic to import."""

JOBS = (
    "run", "plan", "report", "reproduce", "compare", "batches", "instances", "bundle", "verify", "merge",
    "calibrate", "doctor", "slots", "ui", "list",
)  # fmt: skip
#: Which rows a sweep measures again beside those it lacks: none; those that other work disturbed; those that failed.
RETRIES = ("none", "disturbed", "failed", "all")
