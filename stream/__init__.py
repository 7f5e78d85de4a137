"""The serving side of freshet: everything that runs when an event arrives. It imports neither torch nor transformers."""
