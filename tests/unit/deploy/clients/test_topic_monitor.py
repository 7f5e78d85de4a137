"""What a worker's watch over its topics takes for a loss, for a missing topic, for a wrong one, and for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from deploy.clients import admin
from deploy.clients.topic_monitor import TopicWatch
from stream.core.errors import BrokerError, FreshetError, LossError, SettingsError, TopologyError
from stream.settings import Settings, security

SETTINGS = Settings()
KNOWN = {topic.name: f"id of {topic.name}" for topic in admin.topics(SETTINGS)}


def seen(ids: dict[str, str] = KNOWN, *wrong: str) -> admin.Topology:
    """A look that finds topics of these ids."""
    return admin.Topology(4, ids, tuple(KNOWN.keys() - ids.keys()), wrong)


def watch(
    monkeypatch: pytest.MonkeyPatch,
    *looks: admin.Topology | Exception,
    end: Callable[[FreshetError], object] = lambda error: None,
) -> TopicWatch:
    """One that finds `looks`, one after the other."""
    found = iter(looks)

    def look(settings: Settings) -> admin.Topology:
        one = next(found)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr(admin, "look", look)
    return TopicWatch(SETTINGS, KNOWN, end)


def test_the_same_topics_are_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = watch(monkeypatch, seen(), seen(KNOWN | {"of somebody else": "c"}))
    watching.look()
    watching.look()


@pytest.mark.parametrize("topic", KNOWN)
def test_any_topic_with_another_id_was_recreated(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    with pytest.raises(LossError, match=f"topic {topic} was recreated: it has the id z, but had id of {topic} when"):
        watch(monkeypatch, seen(KNOWN | {topic: "z"})).look()


@pytest.mark.parametrize("topic", KNOWN)
def test_any_topic_is_missing_once_two_looks_in_a_row_miss_it(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    without = seen({name: number for name, number in KNOWN.items() if name != topic})
    watching = watch(monkeypatch, without, seen(), without, without)
    for _ in range(3):
        watching.look()
    with pytest.raises(TopologyError, match=f"topic {topic} is missing"):
        watching.look()


def test_a_setting_that_does_not_fit_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TopologyError, match=r"topic clicks has cleanup\.policy=compact; topic items has 2 partitions"):
        watch(
            monkeypatch, seen(KNOWN, "topic clicks has cleanup.policy=compact", "topic items has 2 partitions")
        ).look()


def test_no_broker_is_waited_for_a_bug_is_survived_and_a_loss_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.clients.topic_monitor.EVERY", 0.001)
    ended: list[FreshetError] = []
    looks = (BrokerError("nobody answers"), RuntimeError("a bug of a client"), seen(), seen(KNOWN | {"clicks": "z"}))
    watching = watch(monkeypatch, *looks, end=ended.append)
    watching.start()
    watching.join(10)
    assert not watching.is_alive()
    assert [type(error) for error in ended] == [LossError]


@pytest.mark.parametrize("state", ["absent", "empty", "half written", "of another key"])
def test_certificates_that_are_being_replaced_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    monkeypatch.setattr("deploy.clients.topic_monitor.EVERY", 0.01)
    ca = trustme.CA()
    own, other = ca.issue_cert("one.example.org"), ca.issue_cert("two.example.org")
    file = tmp_path / "both.pem"
    own.private_key_and_cert_chain_pem.write_to_path(file)
    whole = file.read_bytes()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings = SETTINGS.model_copy(
        update={"security_protocol": "SSL", "ssl_cafile": tmp_path / "ca.pem", "ssl_certfile": file}
    )
    now = 0.0
    monkeypatch.setattr(security, "monotonic", lambda: now)
    looks = 0

    def look(settings: Settings) -> admin.Topology:
        nonlocal looks
        security.tls(settings)
        looks += 1
        return seen()

    def until_looked() -> None:
        wanted, end = looks + 2, time.monotonic() + 10
        while looks < wanted and watching.is_alive():
            assert time.monotonic() < end
            time.sleep(0.005)

    monkeypatch.setattr(admin, "look", look)
    ended: list[FreshetError] = []
    watching = TopicWatch(settings, KNOWN, ended.append)
    watching.start()
    try:
        until_looked()
        for _ in range(2):  # two times it is replaced, with a good one in between
            new = tmp_path / "new.pem"
            new.write_bytes(
                {"empty": b"", "half written": whole[: len(whole) // 2]}.get(
                    state, own.private_key_pem.bytes() + other.cert_chain_pems[0].bytes()
                )
            )
            if state == "absent":
                file.unlink()
            else:
                new.replace(file)
            for _ in range(3):
                until_looked()
                now += security.GRACE / 4
            assert ended == []
            assert watching.is_alive()
            assert [one for one in caplog.messages if "waiting up to" in one and "both.pem" in one]
            new.write_bytes(whole)
            new.replace(file)
            until_looked()
        file.unlink()
        until_looked()
        now += security.GRACE + 1
        watching.join(10)
        assert not watching.is_alive()
        assert [type(error) for error in ended] == [SettingsError]
        assert f"waited {security.GRACE + 1:.0f} s for good files" in str(ended[0])
        assert "both.pem" in str(ended[0])
    finally:
        watching.stop()
        watching.join(10)
