"""Activations of bundles for the tests: write them, read the topic, and hold slates against it."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from export.publish import build, publish
from stream.core.bundle_log import Activate, BundleLog, encode, key_of
from stream.settings import Settings
from tests.bundles import shallow_bundle, text_onnx, tiny_run
from tests.worker_process import read_all

NAMES = "names.json"


class ThreeBundles(NamedTuple):
    """A bundles folder, and the ids of what lies there."""

    folder: Path
    own: str
    """That of CURRENT."""
    other: str
    """Has another step model."""
    third: str
    """Has another text encoder."""


def three_bundles(folder: Path) -> None:
    """Publish three bundles below `folder`, and their ids as names.json."""
    other, third = publish(build(tiny_run(seed=8), text=text_onnx()), folder).name, shallow_bundle(folder).name
    own = publish(build(tiny_run(), text=text_onnx()), folder).name  # the last one is CURRENT
    (folder / NAMES).write_text(json.dumps({"own": own, "other": other, "third": third}), "utf-8")


def copied(made: Path, folder: Path) -> ThreeBundles:
    """Copy what `three_bundles` has made."""
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns(NAMES))
    return ThreeBundles(folder, **json.loads((made / NAMES).read_text("utf-8")))


def broken_bundle(folder: Path, bundle: str) -> str:
    """Copy a bundle, with one bit of its score graph changed -> the name of the folder, which its manifest does not fit."""
    broken = "f" * 64
    shutil.copytree(folder / bundle, folder / broken)
    return broken


def damage(folder: Path, bundle: str) -> None:
    """Change one bit of a bundle's score graph."""
    path = folder / bundle / "score.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def activate(settings: Settings, bundle: str, reason: str = "") -> int:
    """Activate a bundle -> the number of the activation."""
    record = Activate(bundle, int(time.time() * 1000), reason)
    producer = KafkaProducer(acks="all", **client_arguments(settings))
    try:
        sent = producer.send(settings.bundles_topic, key=key_of(record), value=encode(record), partition=0)
        return int(sent.get(30).offset)
    finally:
        producer.close()


def bundle_log(settings: Settings) -> BundleLog:
    """What the topic says now. Every record must be acceptable."""
    log = BundleLog()
    records = [(one.offset, one.key, one.value) for one in read_all(settings, settings.bundles_topic)]
    assert log.apply(records) == []
    return log


def reports(settings: Settings, kind: str) -> list[dict[str, Any]]:
    """The records of one kind, in order."""
    found = [json.loads(one.value) for one in read_all(settings, settings.bundles_topic)]
    return [one for one in found if one["kind"] == kind]


def made_by(settings: Settings, before: str) -> Counter[str]:
    """Assert that every slate, that for unknown users included, names the bundle that the topic says -> slates by bundle.

    before: The bundle of a partition's slates before its first `switched`.
    """
    log, found = bundle_log(settings), Counter[str]()
    for record in read_all(settings, settings.recommendations_topic):
        if record.value is None:
            continue
        slate = json.loads(record.value)
        switch = log.partitions[record.partition].at(record.offset) if record.partition in log.partitions else None
        expected = before if switch is None else switch.bundle
        assert slate["bundle"] == expected, (record.partition, record.offset, slate["user"], log.partitions)
        found[slate["bundle"]] += 1
    return found
