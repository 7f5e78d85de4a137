"""Ranks, top-k lists, metrics and the bootstrap."""
