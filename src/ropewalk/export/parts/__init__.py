"""What export targets have in common."""
