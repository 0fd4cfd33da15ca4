"""Training: the descent, the loop, and the cost of both."""
