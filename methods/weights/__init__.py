"""The weights of a model: its layers, masks of them, their importance and their gradients."""
