"""Plans become true, and untrue again: units, the journal, the one transaction, recovery, history."""
