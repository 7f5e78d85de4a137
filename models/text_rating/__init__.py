"""Reading the rating out of a comment's text: BERT with tuned upper layers, its rivals, its protocol."""
