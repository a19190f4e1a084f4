"""Which checkpoints are whole, and what the others lack."""
