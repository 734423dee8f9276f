"""The sweep: what is missing, in what order, measured in fresh processes and written down once."""
