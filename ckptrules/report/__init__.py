"""What a plan, a run or a tree is, as text and as data."""
