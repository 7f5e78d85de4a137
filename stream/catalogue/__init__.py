"""The live items: reading them from the topic `items`, the matrix that the models score, and the popular items."""
