"""Reads what is inside a checkpoint; nothing in it is executed."""
