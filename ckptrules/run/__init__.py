"""What all commands of one call share."""
