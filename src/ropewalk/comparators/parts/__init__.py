"""What comparators have in common."""
