"""Pages: one module per page of the site."""
