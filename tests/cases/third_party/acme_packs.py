"""A package of somebody else that ships a pack: its entry point leads to the path of the file."""

from pathlib import Path

ACME = Path(__file__).with_name("acme.yaml")
