"""What share of the zeros becomes time: pruning methods, structures and the kernels that run them."""
