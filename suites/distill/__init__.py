"""Distillation, tiny networks, graphs, utilisation; see catalogue.yaml for what is registered by name."""
