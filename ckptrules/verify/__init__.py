"""Names, structure and content of what is there, and what was verified before."""
