"""Training as such: the loop, its settings, its checkpoints and records. Knows no method and imports nothing else of the package."""
