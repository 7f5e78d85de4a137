"""The report: as JSON, and every count and kind of violation is explained."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import get_args

from deploy.verify import Report
from deploy.verify.report import Kind, NoteKind
from tests.conftest import ROOT
from tests.unit.deploy.verify.worlds import committed_unread, small, verify


def test_the_report_as_json() -> None:
    world = small()
    committed_unread(world)
    found = json.loads(json.dumps(verify(world).as_dict()))
    assert found["ok"] is False
    assert found["lost"] == 1
    assert found["violations"][0]["kind"] == "lost"


def test_every_kind_of_violation_is_documented() -> None:
    """docs/verify.md tells what each means."""
    kinds = {*get_args(Kind), *get_args(NoteKind)}
    page = (ROOT / "docs" / "verify.md").read_text("utf-8")
    assert kinds >= {"lost", "fork", "gap", "numbers", "claim"}
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []


def test_every_count_of_the_report_is_explained() -> None:
    docstring = Report.__doc__ or ""
    unexplained = {
        "users",
        "states",
        "slates",
        "replays",
        "seconds",
        "kinds",
        "violations",
        "notes",
    }
    missing = [f.name for f in fields(Report) if f.name not in unexplained and f.name not in docstring]
    assert [name for name in missing if not name.endswith("_found")] == []
