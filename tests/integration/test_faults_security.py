"""Short forms of tests/chaos/test_security.py, and the documented rights of every client on the same secured broker."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from deploy.clients.admin import check as check_topics
from deploy.clients.log_reader import KafkaLog
from deploy.clients.murmur2 import murmur2
from deploy.clients.producer import Producer
from deploy.clients.slate_reader import SlateReader
from stream.core.errors import BrokerError
from stream.kafka.clients import consumer_arguments
from stream.settings import Settings
from tests.chaos import security
from tests.gateway_process import GatewayProcess
from tests.secured_kafka import MECHANISMS, Right, SecuredKafka
from tests.tally_process import TallyProcess
from tests.worker_process import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def admin(secured: SecuredKafka) -> Settings:
    """The documented rights, and a record in every source topic: nothing is read of an empty one, so no right is asked."""
    settings = security.prepare(secured, "rights")
    producer = security.as_user(secured, "producer", settings)
    with Producer(producer) as client:
        for topic in (*settings.sources, settings.items_topic):
            client.position(client.send(topic, b"k", b"{}"))
    with Producer(settings) as client:
        client.position(client.send(settings.rules_topic, b"k", None))
    return settings


def test_refused_at_the_start(secured: SecuredKafka, bundles: Path, tmp_path: Path) -> None:
    security.refused_at_start(secured, bundles, tmp_path, seed=1)


def test_a_missing_right(secured: SecuredKafka, bundles: Path, tmp_path: Path) -> None:
    security.missing_right(secured, bundles, tmp_path, seed=3)


@pytest.mark.parametrize("seed", [0, 5])  # by a token, a topic's right; by SCRAM, the group's
def test_a_right_is_revoked_at_work(secured: SecuredKafka, bundles: Path, tmp_path: Path, seed: int) -> None:
    security.revoked_at_work(secured, bundles, tmp_path, seed)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_every_mechanism_with_both_libraries(secured: SecuredKafka, admin: Settings, mechanism: str) -> None:
    settings = security.as_user(secured, "worker", admin, mechanism)
    assert check_topics(settings, worker=True).partitions == admin.partitions

    async def partitions() -> set[int]:
        consumer = AIOKafkaConsumer(settings.items_topic, **consumer_arguments(settings))
        await consumer.start()
        try:
            found: set[int] = consumer.partitions_for_topic(settings.items_topic)
            return found
        finally:
            await consumer.stop()

    assert asyncio.run(partitions()) == {0}


def test_a_worker_without_any_of_its_rights_is_told_which(secured: SecuredKafka, admin: Settings) -> None:
    """One by one: none of the documented rights is too many."""
    settings = security.as_user(secured, "worker", admin)
    for right in security.documented(admin)["worker"]:
        secured.revoke("worker", right)
        try:
            with pytest.raises(BrokerError, match=rf"{right.kind} {right.name}: .*\b{right.operation}\b"):
                check_topics(settings, worker=True)
        finally:
            secured.allow("worker", right)
    check_topics(settings, worker=True)


def test_a_gateway_without_any_of_its_rights_is_told_which(secured: SecuredKafka, admin: Settings) -> None:
    """One by one: none of the documented rights is too many."""
    settings = security.as_user(secured, "gateway", admin)
    for right in security.documented(admin)["gateway"]:
        secured.revoke("gateway", right)
        try:
            with pytest.raises(BrokerError, match=rf"{right.kind} {right.name}: .*\b{right.operation}\b"):
                check_topics(settings, gateway=True)
        finally:
            secured.allow("gateway", right)
    check_topics(settings, gateway=True)


def test_a_tally_does_its_work_with_its_rights_and_is_told_which_it_lacks(
    secured: SecuredKafka, admin: Settings, bundles: Path, tmp_path: Path
) -> None:
    """One by one: none of the documented rights is too many."""
    settings = security.as_user(secured, "tally", admin)
    tally = TallyProcess(settings, tmp_path, bundles=bundles, secrets=secured.secrets("tally"))
    tally.once()
    assert any(line["message"] == "epoch published" for line in tally.lines())
    for right in security.documented(admin)["tally"]:
        secured.revoke("tally", right)
        try:
            if right.kind == "topic":
                with pytest.raises(BrokerError, match=rf"topic {right.name}: .*\b{right.operation}\b"):
                    check_topics(settings, tally=True)
            else:
                assert tally.start().wait(120) == 69
                assert f"transactional id {right.name}" in tally.lines()[-1]["message"]
        finally:
            secured.allow("tally", right)
    check_topics(settings, tally=True)


def test_a_gateway_does_all_of_its_work_with_its_rights(secured: SecuredKafka, bundles: Path, tmp_path: Path) -> None:
    """Events and items written, states, items, slates and committed offsets read: nothing is refused, and none is missing."""
    admin = security.prepare(secured, "gateway")
    worker = security.worker(secured, security.as_user(secured, "worker", admin), bundles, tmp_path).start()
    gateway = GatewayProcess(
        security.as_user(secured, "gateway", admin), tmp_path, bundles=bundles, secrets=secured.secrets("gateway")
    ).start()
    try:
        gateway.wait_ready()
        written = gateway.ask("PUT", "/v1/items/item-1", {"item": "item-1", "title": "One"})
        assert written.status == 200, written
        shown = gateway.ask("GET", f"/v1/items/item-1?min_offset={written.body['min_offset']}")
        assert shown.status == 200, shown
        worker.wait_ready()
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port(), timeout=60)
        connection.request("GET", "/v1/users/ann/stream")
        stream = connection.getresponse()
        places = {}
        for kind, more in (("click", {}), ("rating", {"value": 4}), ("comment", {"text": "good"})):
            event = {"type": kind, "user": "ann", "item": "item-1", "time": int(time.time() * 1000)} | more
            answer = gateway.ask("POST", "/v1/events", event)
            assert answer.status == 200, answer
            places[kind] = answer.body["events"][0]["min_offset"]
        slate = until(partial(_answered, gateway, "ann", ",".join(places.values())), 60, "the slate with all events")
        assert (slate["seq"], slate["min_offset"]) == (3, "applied")
        topic, partition = places["click"].partition(":")[0].rsplit("/", 1)
        other = next(name for name in map(str, range(50)) if murmur2(name.encode()) % 2 == int(partition))
        finished = until(partial(_answered, gateway, other, f"{topic}/{partition}:0"), 60, "the committed offsets")
        assert finished["min_offset"] == "finished"  # only the group's offsets can show it
        while not ((line := stream.readline()).startswith(b"data: ") and json.loads(line[6:])["seq"] == 3):
            assert line, "the stream has ended"
        connection.close()
        lines = [line for line in gateway.lines() if line["level"] in ("WARNING", "ERROR", "CRITICAL")]
        assert not lines
        for text in (gateway.log.read_text(), gateway.get("/metrics")[1], gateway.get("/openapi.json")[1]):
            assert "canary" not in text
    finally:
        gateway.close()
        worker.close()


def _answered(gateway: GatewayProcess, user: str, place: str) -> Any:
    answer = gateway.slate(user, f"min_offset={place}")
    return answer.body if answer.status == 200 else None


def test_a_gateway_whose_right_is_missing_ends_with_its_name(
    secured: SecuredKafka, admin: Settings, bundles: Path, tmp_path: Path
) -> None:
    right = next(one for one in security.documented(admin)["gateway"] if one.kind == "group")
    gateway = GatewayProcess(
        security.as_user(secured, "gateway", admin), tmp_path, bundles=bundles, secrets=secured.secrets("gateway")
    )
    secured.revoke("gateway", right)
    try:
        assert gateway.start().wait(60) == 69
    finally:
        secured.allow("gateway", right)
        gateway.close()
    last = gateway.lines()[-1]["message"]
    assert f"group {right.name}: Describe" in last


def without(secured: SecuredKafka, user: str, right: Right) -> BrokerError:
    """What the user's client says where it lacks the right."""
    name = right.name.split("-")[0]
    settings = secured.settings(user, prefix=f"{name}-", app_id=f"{name}-app", **security.SECURED)
    secured.revoke(user, right)
    try:
        with pytest.raises(BrokerError) as raised:
            use(settings, user, right)
        return raised.value
    finally:
        secured.allow(user, right)


def use(settings: Settings, user: str, right: Right) -> None:
    """Do what the right is for, by the client that has it."""
    if right.operation == "Write":
        with Producer(settings) as producer:
            producer.position(producer.send(right.name, b"k", b"{}"))
    elif right.kind == "group":
        log = KafkaLog(settings)
        log.committed()
        log.close()
    elif user == "consumer":
        reader = SlateReader(settings, "ann")
        reader.latest()
        reader.close()
    else:
        log = KafkaLog(settings)
        spans = log.spans([right.name])
        if right.operation == "Read":
            list(log.records(right.name, spans))
        log.close()


@pytest.mark.parametrize("user", ["producer", "consumer", "verifier", "operator"])
def test_every_other_client_needs_each_of_its_rights(secured: SecuredKafka, admin: Settings, user: str) -> None:
    rights = security.documented(admin)[user]
    for right in sorted(rights, key=lambda one: one.operation != "Write"):  # what is read must hold something
        settings = secured.settings(user, "SCRAM-SHA-256", prefix=admin.prefix, app_id=admin.app_id, **security.SECURED)
        use(settings, user, right)
        error = without(secured, user, right)
        assert right.name in str(error), error
        assert "ACL is missing" in str(error), error
        assert error.exit_code == 69


def test_secrets_show_in_no_command(secured: SecuredKafka, admin: Settings, tmp_path: Path) -> None:
    """--help, a good run, a failing run and a crash with a traceback."""
    given = {
        "FRESHET_BROKERS": secured.address(),
        "FRESHET_SECURITY_PROTOCOL": "SASL_SSL",
        "FRESHET_SASL_USERNAME": "worker",
        "FRESHET_SASL_PASSWORD": "canary-worker-pw",
        "FRESHET_SSL_CAFILE": str(secured.ca),
        "FRESHET_PREFIX": admin.prefix,
        "FRESHET_APP_ID": admin.app_id,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    commands: list[tuple[list[str], dict[str, str], set[int]]] = [
        (["worker", "--help"], {}, {0}),
        (["topics", "check"], {}, {0}),
        (["topics", "check"], {"FRESHET_SASL_PASSWORD": "canary-other"}, {69}),
        (["topics", "check"], {"FRESHET_PARTITIONS": "canary"}, {78}),
        (["--set", "sasl_password=canary-flag", "topics", "check"], {}, {78}),
        (["worker"], {"FRESHET_BUNDLES": str(tmp_path)}, {65}),
    ]
    for arguments, more, codes in commands:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            env=kept | given | more, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in codes, (arguments, done.stderr)
        assert "canary" not in done.stdout + done.stderr, arguments
        assert "Traceback" not in done.stderr, arguments
    crash = (
        "from stream.app import InterestApp; from stream.settings import load; s = load(); app = InterestApp(s); 1 / 0"
    )
    done = subprocess.run(
        [sys.executable, "-c", crash], env=kept | given, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ZeroDivisionError" in done.stderr
    assert "canary" not in done.stderr
    assert json.dumps(repr(admin)).count("canary") == 0
