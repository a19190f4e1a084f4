"""Writes plans, runs and trees as text, as JSON and as a page."""
