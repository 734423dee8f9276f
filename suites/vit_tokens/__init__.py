"""vit_tokens subjects; see catalogue.yaml for what is registered by name."""
