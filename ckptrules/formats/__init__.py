"""What is inside a checkpoint; nothing of it is executed."""
