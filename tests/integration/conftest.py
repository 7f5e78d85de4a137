"""Which integration tests break something on purpose."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of a module test_faults_*.py is marked `faults`, so that none is forgotten; other modules say so themselves."""
    for item in items:
        if item.path.name.startswith("test_faults_"):
            item.add_marker(pytest.mark.faults)
