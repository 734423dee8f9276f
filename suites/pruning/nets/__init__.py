"""The plain networks of this suite, each buildable at any widths, so that a published pruned shape needs no method."""
