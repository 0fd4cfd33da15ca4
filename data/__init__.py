"""Data sets as tensors, the batches drawn from them, and the requests to forget some of them."""
