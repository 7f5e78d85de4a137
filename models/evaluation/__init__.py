"""Compares models fairly: protocols, the comparison, its summary and the report."""
