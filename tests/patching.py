"""Put another function in the place of one of the product's, in a process that breaks a promise on purpose."""

from __future__ import annotations


def patch(owner: object, name: str, replacement: object) -> None:
    """Set an attribute of a module or a class. Raises AttributeError where there is none: the patch would change nothing, and
    the test of it would test nothing."""
    getattr(owner, name)
    setattr(owner, name, replacement)
