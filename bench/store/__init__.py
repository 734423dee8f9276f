"""The store: write-once records, their parts, the journal, the lock and bundles; the truth on disk."""
