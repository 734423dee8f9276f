"""Networks that answer at every time step, beside the same weights run on the whole window again."""
