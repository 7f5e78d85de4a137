"""The serving side of freshet: everything that runs when an event arrives. Imports no torch and no transformers."""
