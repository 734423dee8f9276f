"""Low-rank and structured weights, random features, merged experts, spectral training; see catalogue.yaml for names."""
