"""Code that several methods share: one module per family."""
