"""pretrain → record → unlearn → evaluate: the only package that knows of files, time and Hydra."""
