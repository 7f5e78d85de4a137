"""Dead letters: reading, correcting and redriving them."""
