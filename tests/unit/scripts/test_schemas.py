"""The published JSON Schemas are those of the structs, and both say the same about what the worker writes."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema_rs
import msgspec
import pytest

from scripts.schemas import schemas
from stream.core import bundle_log
from stream.core.messages import MESSAGES, Recommendation, Scored
from tests.conftest import ROOT


def test_the_published_schemas_are_current() -> None:
    published = {path.name: path.read_text("utf-8") for path in (ROOT / "docs" / "schemas").glob("*.json")}
    assert published == schemas(), "run: python -m scripts.schemas"


def test_they_are_installed_with_the_package() -> None:
    installed = files("deploy").joinpath("schemas")
    assert {path.name for path in installed.iterdir()} == set(schemas())


@pytest.mark.parametrize("name", [*MESSAGES, *bundle_log.MESSAGES])
def test_each_is_a_valid_schema_of_draft_2020_12(name: str) -> None:
    schema = json.loads(schemas()[f"{name}.json"])
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.validator_for(schema)


def test_a_slate_fits_its_schema() -> None:
    slate = Recommendation(
        user="alice", slate="s", seq=3, chain="00" * 16, items=[Scored("a", 1.5), Scored("b", -2.0)], time=5,
        latency_ms=-1, events=[("clicks", 0, 7)], applied={"clicks/0": 7}, catalogue=-1, bundle="b", strategy="interest",
        replay=False,
    )  # fmt: skip
    validator = jsonschema_rs.validator_for(json.loads(schemas()["recommendation.json"]))
    written = json.loads(msgspec.json.encode(slate))
    assert validator.is_valid(written)
    assert not validator.is_valid(written | {"seq": "3"})
    assert not validator.is_valid(written | {"events": [["clicks", 0]]})


def test_headers_of_dead_letters_have_their_wire_names() -> None:
    schema = json.loads(schemas()["dead-letter-headers.json"])
    required = schema["$defs"]["DeadLetterHeaders"]["required"]
    assert "__rec.errors.payload.sha256" in required
    assert "__rec.errors.app.version" in required
    assert all(name.startswith("__rec.errors.") for name in required)
