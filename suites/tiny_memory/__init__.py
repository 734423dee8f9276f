"""Peak memory on tiny devices; see catalogue.yaml for what is registered by name."""
