"""Ready-made comparisons, each a YAML file that says what it is for."""
