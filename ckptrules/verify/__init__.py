"""Verifies checkpoints: names, structure and content; remembers the results."""
