"""The alert rules, with the links to the runbook made absolute: whoever is woken has no checkout beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from stream.core.errors import DataError

RULES: Final = Path(__file__).parents[1] / "prometheus" / "rules" / "freshet.yml"
RELATIVE: Final = "docs/runbook.md"
"""What the links begin with in the rules; #alert follows."""

_ADDRESS: Final = re.compile(r"https?://[^\s#\"'{}\\<>/?]+(?:[/?][^\s#\"'{}\\<>]*)?")


def with_runbook(base: str) -> str:
    """The rules as YAML text; base: address of the runbook's page, without a fragment; "" leaves the links relative.

    Raises DataError where base is no address.
    """
    rules = RULES.read_text("utf-8")
    if not base:
        return rules
    if not _ADDRESS.fullmatch(base):
        raise DataError(
            f"runbook-url: {base!r}: expected http:// or https://, a host and a path, without a fragment (#...)"
        )
    return rules.replace(f"runbook_url: {RELATIVE}#", f"runbook_url: {base}#")
