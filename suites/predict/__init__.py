"""Predictors of cost: look-up tables and surrogates beside multiply-accumulates and the roofline."""
