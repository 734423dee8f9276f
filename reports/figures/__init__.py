"""Figures: each module has a pure function that makes the arrays and a thin one that draws them."""
