"""The subjects: one folder per suite, shared building blocks in `suites.common`."""
