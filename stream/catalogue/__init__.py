"""The live items: read from the topic `items`, kept as the matrix that the models score, and the popular ones among them."""
