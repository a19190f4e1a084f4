"""Draws the JSON that `json=` writes as a page: one HTML file that needs nothing else."""
