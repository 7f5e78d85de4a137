"""What every bench runs in: one embedded Kafka, bundles, and topics of its own for each measurement."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.embedded_kafka import EmbeddedKafka
from export.publish import build, publish
from models.network.blend import Blend
from models.training.run import Run
from stream.inference.bundle import current, load
from stream.settings import Settings
from tests.bundles import text_onnx, tiny_run
from tests.settings import with_own_topics

PARTITIONS = 4


@dataclass(frozen=True)
class Bundles:
    """A bundles folder and the ids of the items that its catalogue knows."""

    name: str
    folder: Path
    items: tuple[str, ...]
    hidden: int


@dataclass(frozen=True)
class World:
    """brokers: host:port; folder: scratch space, gone at the end."""

    brokers: str
    folder: Path
    tiny: Bundles
    real: Bundles

    def settings(self, **values: Any) -> Settings:
        """Settings with topics of their own, which are made."""
        return with_own_topics(self.brokers, **{"partitions": PARTITIONS} | values)

    def scratch(self) -> Path:
        """A new empty folder."""
        made = self.folder / uuid.uuid4().hex[:8]
        made.mkdir()
        return made


def real_run(items: int) -> Run:
    """An untrained network of real size (state width 128, item width 64) with 100 neighbours of each of the last 20 choices,
    which costs what a trained one does."""
    return tiny_run(items, item=64, hidden=128, near=100, blend=Blend(last=20, fade=0.6, neighbour=0.5, prior=0.3))


@contextmanager
def world(given: Path | None = None, real_items: int = 10_000) -> Iterator[World]:
    """given: a bundles folder to serve as the real-size one; None: that of `real_run`."""
    with TemporaryDirectory(prefix="freshet-bench-") as folder:
        scratch = Path(folder)
        publish(build(tiny_run(), text=text_onnx()), scratch / "tiny")
        if given is None:
            publish(build(real_run(real_items), text=text_onnx()), scratch / "real")
        tiny = bundles("tiny", scratch / "tiny")
        real = bundles("real size", given or scratch / "real")
        with EmbeddedKafka(scratch / "kafka") as kafka:
            yield World(kafka.bootstrap, scratch, tiny, real)


def bundles(name: str, folder: Path) -> Bundles:
    bundle = load(current(folder))
    return Bundles(name, folder.absolute(), bundle.item_ids, bundle.hidden)
