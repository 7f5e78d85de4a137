"""The alert rules with absolute links to the runbook: the person on call may not have a checkout at hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from stream.core.errors import DataError

RULES: Final = Path(__file__).parents[1] / "prometheus" / "rules" / "freshet.yml"
RELATIVE: Final = "docs/runbook.md"
"""Start of the links in the rules; `#alert` follows."""

_ADDRESS: Final = re.compile(r"https?://[^\s#\"'{}\\<>/?]+(?:[/?][^\s#\"'{}\\<>]*)?")


def with_runbook(base: str) -> str:
    """Return the rules as YAML text.

    Args:
        base: Address of the runbook's page, without a fragment; "" leaves the links relative.

    Raises:
        DataError: `base` is not an address.
    """
    rules = RULES.read_text("utf-8")
    if not base:
        return rules
    if not _ADDRESS.fullmatch(base):
        raise DataError(
            f"runbook-url: {base!r}: expected http:// or https://, a host and a path, without a fragment (#...)"
        )
    return rules.replace(f"runbook_url: {RELATIVE}#", f"runbook_url: {base}#")
