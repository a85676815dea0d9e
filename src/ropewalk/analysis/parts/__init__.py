"""What analyses have in common."""
