"""What the target can tell of its own pages."""
