"""Comparing models honestly: protocols, the comparison, its summary and the report."""
