"""Records of a training: one module or package per recorder, and the files that they write."""
