"""diffusion subjects; see catalogue.yaml for what is registered by name."""
