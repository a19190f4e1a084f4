"""Backups: copies, backing_up, backups, restoring. Archives: tar, packing, unpacking."""
