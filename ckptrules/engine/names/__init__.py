"""What a name says: read by rules, by packs and word by word; and the name that it should have."""
