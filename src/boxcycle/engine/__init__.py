"""Training as such: loop, settings, checkpoints, records. Knows no method, imports nothing else of the package."""
