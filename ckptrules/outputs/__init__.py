"""What lies under the outputs: directories found and listed, and what a plan must know beyond names."""
