"""The host: what the numbers were taken on, what disturbed them, and what about it is personal."""
