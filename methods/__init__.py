"""Training and unlearning: one module per method, each with its card as the module's docstring."""
