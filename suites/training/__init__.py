"""Cheaper training steps; see catalogue.yaml for what is registered by name."""
