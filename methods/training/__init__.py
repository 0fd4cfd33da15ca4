"""Training: gradient descent, its loop, and their cost."""
