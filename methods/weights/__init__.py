"""The weights of a model: layers, masks of weights, and the importance and gradients of each weight."""
