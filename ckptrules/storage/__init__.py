"""Names and bytes under one root. The only room that changes the disk; it decides nothing."""
