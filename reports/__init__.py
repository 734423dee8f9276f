"""Static HTML reports: pure functions from the tidy table to figures and pages."""
