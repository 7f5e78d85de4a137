"""What freshet learns from: the source topics, captured into files."""
