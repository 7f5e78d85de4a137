"""The table of what a worker needs of its topics: what is made fits, and what does not fit is found."""

from __future__ import annotations

import pytest

from stream.settings import Settings
from stream.settings.topic_needs import HOUR, KINDS, MIN_KEPT, Found, Kind, kind_of, mended, wrong

SETTINGS = Settings(prefix="shop-", app_id="shop")
BROKER = {"retention.ms": str(7 * 24 * HOUR), "retention.bytes": "-1"}
"""Kafka's defaults, of what is not always made."""

CHANGELOG, CLICKS, ITEMS = SETTINGS.changelog_topic, SETTINGS.sources[0], SETTINGS.items_topic
LETTERS, SLATES = SETTINGS.dead_letters_topic, SETTINGS.recommendations_topic


def made(topic: str, replication: int = 1, /, **changed: str) -> Found:
    """A topic as it is made, then changed."""
    config = BROKER | kind_of(SETTINGS, topic).config(replication)
    return Found(config | {name.replace("_", "."): value for name, value in changed.items()}, replication)


@pytest.mark.parametrize("replication", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_what_is_made_fits(kind: Kind, replication: int) -> None:
    for topic in kind.names(SETTINGS):
        assert wrong(SETTINGS, topic, made(topic, replication)) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_what_mends_a_setting_fits(kind: Kind) -> None:
    for need in kind.needs:
        assert need.met(Found({"cleanup.policy": "delete", need.setting: need.value(3)}, 3))


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        (CLICKS, "cleanup.policy", "compact"),
        (CLICKS, "cleanup.policy", "compact,delete"),
        (CLICKS, "retention.ms", str(HOUR - 1)),
        (CLICKS, "retention.bytes", str(MIN_KEPT - 1)),
        (CLICKS, "compression.type", "zstd"),
        (CLICKS, "message.timestamp.type", "CreateTime"),
        (CLICKS, "max.message.bytes", str((4 << 20) + 1)),
        (ITEMS, "cleanup.policy", "delete"),
        (ITEMS, "max.message.bytes", str((4 << 20) + 1)),
        (SLATES, "cleanup.policy", "delete"),
        (SLATES, "cleanup.policy", "compact,delete"),
        (SLATES, "message.timestamp.type", "CreateTime"),
        (SLATES, "max.message.bytes", "100000"),
        (LETTERS, "cleanup.policy", "compact"),
        (LETTERS, "message.timestamp.type", "CreateTime"),
        (LETTERS, "max.message.bytes", str(4 << 20)),
        (CHANGELOG, "cleanup.policy", "delete"),
        (CHANGELOG, "cleanup.policy", "compact,delete"),
        (CHANGELOG, "message.timestamp.type", "CreateTime"),
        (CHANGELOG, "max.message.bytes", "700000"),
        (CHANGELOG, "min.insync.replicas", "2"),
        (CHANGELOG, "min.insync.replicas", "no number"),
    ],
)
def test_what_does_not_fit_is_found(topic: str, setting: str, value: str) -> None:
    found = wrong(SETTINGS, topic, made(topic, **{setting.replace(".", "_"): value}))
    assert [(need.setting, value) for need, value in found] == [(setting, value)]


@pytest.mark.parametrize(
    ("topic", "setting", "value"),
    [
        (CLICKS, "retention.ms", "-1"),
        (CLICKS, "max.message.bytes", "1048588"),
        (SLATES, "retention.ms", "1000"),  # it counts only where the policy deletes
        (SLATES, "max.message.bytes", "1048588"),  # Kafka's default
        (CHANGELOG, "retention.ms", "1000"),
        (CHANGELOG, "min.compaction.lag.ms", "86400000"),
        (CHANGELOG, "compression.type", "zstd"),
    ],
)
def test_what_fits_besides(topic: str, setting: str, value: str) -> None:
    assert wrong(SETTINGS, topic, made(topic, **{setting.replace(".", "_"): value})) == []


@pytest.mark.parametrize(("replication", "least", "most"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (5, 2, 5)])
def test_replicas_in_sync_are_measured_by_the_copies(replication: int, least: int, most: int) -> None:
    fit = [
        number
        for number in range(7)
        if not wrong(SETTINGS, CLICKS, made(CLICKS, replication, min_insync_replicas=str(number)))
    ]
    assert (fit[0], fit[-1]) == (least, most)


def test_a_setting_that_the_broker_does_not_tell_does_not_fit() -> None:
    assert {need.setting for need, _ in wrong(SETTINGS, CHANGELOG, Found({}, 1))} == {
        need.setting for need in kind_of(SETTINGS, CHANGELOG).needs
    }


def test_a_topic_of_somebody_else_has_no_kind() -> None:
    with pytest.raises(KeyError):
        kind_of(SETTINGS, "clicks")


def test_what_counts_only_once_the_policy_deletes_is_mended_with_it() -> None:
    found = made(CLICKS, cleanup_policy="compact", retention_ms="1000")
    assert [need.setting for need, _ in wrong(SETTINGS, CLICKS, found)] == ["cleanup.policy"]
    assert mended(SETTINGS, CLICKS, found) == {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * HOUR)}


def test_what_no_setting_mends_is_tried_once() -> None:
    assert mended(SETTINGS, CLICKS, made(CLICKS, 0)) == {"min.insync.replicas": "1"}
