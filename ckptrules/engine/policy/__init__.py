"""Which checkpoints stay: policies, their lines, and what they are applied to."""
