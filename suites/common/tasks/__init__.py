"""Tasks, one file each: weights, data and a score; see suites/common/catalogue.yaml for their names."""
