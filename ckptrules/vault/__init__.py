"""Backups and archives."""
