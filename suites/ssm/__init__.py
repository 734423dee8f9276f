"""Vision, restoration and traffic networks built on selective state spaces; see catalogue.yaml for names."""
