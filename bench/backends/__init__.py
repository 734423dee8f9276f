"""How a subject is made to run: one file a backend and one line in this table; a backend's library is imported inside functions."""
