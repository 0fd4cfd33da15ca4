"""Groups of benchmarks, for `python -m runner.bench`."""
