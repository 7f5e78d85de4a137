"""Text rating by BERT with tuned upper layers, its rivals, and its protocol."""
