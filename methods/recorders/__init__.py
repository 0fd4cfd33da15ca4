"""One module per recorder."""
