"""The page: the JSON that `json=` writes → one HTML file that needs nothing else."""
