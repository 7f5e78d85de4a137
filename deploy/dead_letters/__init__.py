"""Read, correct and redrive dead letters."""
