"""The alerts' runbook links: relative in the rules, absolute by `freshet alerts --runbook-url`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli.alert_rules import RULES, with_runbook
from stream.core.errors import DataError
from tests.conftest import ROOT

BASE = "https://git.example.org/freshet/blob/main/docs/runbook.md"


def links(rules: str) -> dict[str, str]:
    """Alert -> its link."""
    groups = yaml.safe_load(rules)["groups"]
    return {
        rule["alert"]: rule["annotations"]["runbook_url"] for one in groups for rule in one["rules"] if "alert" in rule
    }


def test_every_link_gets_the_base_and_nothing_else_changes(freshet: Callable[..., tuple[int, str, str]]) -> None:
    plain = RULES.read_text()
    code, out, err = freshet("alerts", "--runbook-url", BASE)
    assert (code, err) == (0, "")
    found = links(out)
    assert len(found) >= 20
    assert found == {name: f"{BASE}#{name.lower()}" for name in found}
    assert out.replace(BASE, "docs/runbook.md") == plain
    assert freshet("alerts") == freshet("alerts", "--runbook-url", "") == (0, plain, "")


def test_they_are_written_to_a_file_that_others_may_read(
    freshet: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "rules" / "freshet.yml"
    file.parent.mkdir()
    assert freshet("alerts", "--runbook-url", BASE, "--out", str(file)) == (0, "", "")
    assert set(links(file.read_text()).values()) == {
        f"{BASE}#{name}" for name in map(str.lower, links(RULES.read_text()))
    }
    assert file.stat().st_mode & 0o777 == 0o644
    code, _, err = freshet("alerts", "--out", str(tmp_path / "absent" / "x.yml"))
    assert code == 74
    assert "absent" in err


@pytest.mark.parametrize(
    "base",
    ["docs/runbook.md", "ftp://a/b", "https://", "https://a b/c", "https://a/b#c", 'https://a/"b', "https://a/{{ x }}"],
)
def test_a_base_that_is_no_address_is_refused(base: str, freshet: Callable[..., tuple[int, str, str]]) -> None:
    with pytest.raises(DataError, match="runbook-url"):
        with_runbook(base)
    code, out, err = freshet("alerts", "--runbook-url", base)
    assert (code, out) == (65, "")
    assert "expected http:// or https://" in err


def test_compose_uses_them() -> None:
    services: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    rules, prometheus = services["rules"], services["prometheus"]
    assert rules["command"][:1] == ["alerts"]
    (volume,) = [one.split(":") for one in rules["volumes"]]
    assert rules["command"][-2:] == ["--out", f"{volume[1]}/freshet.yml"]
    assert f"{volume[0]}:/etc/prometheus/rules:ro" in prometheus["volumes"]
    assert prometheus["depends_on"]["rules"] == {"condition": "service_completed_successfully"}
    assert not any(name.startswith("FRESHET_") for name in rules.get("environment", {}))
