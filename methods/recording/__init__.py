"""Records of training: one module per recorder, and the files that they write."""
