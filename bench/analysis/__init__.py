"""The analysis: pure functions from raw samples to records, and from records to tables, ranks and verdicts."""
