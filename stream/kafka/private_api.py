"""The private names of Faust, mode and aiokafka that freshet relies on, checked before anything starts."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Final

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.producer.sender import Sender
from aiokafka.record.default_records import _DefaultRecordBatchPy
from faust.app import App
from faust.channels import Channel
from faust.stores import rocksdb
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from mode import Service
from mode.threads import ServiceThread

from stream.core.errors import SettingsError

PINNED: Final = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}

METHODS: Final[tuple[tuple[type, str], ...]] = (
    (driver.Consumer, "_getmany"),
    (driver.Consumer, "_get_active_partitions"),
    (driver.Consumer, "_filter_committable_offsets"),
    (driver.Consumer, "_should_commit"),
    (driver.Consumer, "_new_consumer_thread"),
    (driver.AIOKafkaConsumerThread, "_fetch_records"),
    (driver.AIOKafkaConsumerThread, "_ensure_consumer"),
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
    (driver.Producer, "_settings_extra"),
    (App, "_new_transport"),
    (rocksdb.Store, "_db_for_partition"),
    (GroupCoordinator, "_do_heartbeat"),
    (GroupCoordinator, "_send_req"),
    (GroupCoordinator, "_push_error_to_user"),
    (Sender, "_send_produce_req"),
    (_DefaultRecordBatchPy, "_maybe_uncompress"),
    (Service, "_execute_task"),
    (Service, "_gather_futures"),
    (Service, "crash"),
    (ServiceThread, "_gather_remaining_tasks"),
)

ATTRIBUTES: Final[tuple[tuple[type, str], ...]] = (
    (driver.Consumer, "_committed_offset"),
    (driver.Consumer, "_read_offset"),
    (driver.Consumer, "_thread"),
    (driver.AIOKafkaConsumerThread, "_consumer"),
    (driver.Producer, "_producer"),
    (Channel, "_queue"),
    (rocksdb.Store, "_dbs"),
    (rocksdb.Store, "offset_key"),
    (Recovery, "active_offsets"),
    (Recovery, "standby_offsets"),
    (Recovery, "tp_to_table"),
    (Recovery, "buffers"),
)

SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "aiokafka.consumer.consumer": (
        "self._fetch_max_wait_ms",
        "self._isolation_level",
        "self._coordinator",
        "self._client",
        "self._fetcher",
        "self._subscription",
    ),
    "aiokafka.consumer.fetcher": (
        "self._fetch_task = ",
        "tp_state.lso = lso",
        "self._records",
        "self._records[tp] = FetchResult(",
        "records = self._records",
        "for tp in list(self._records.keys()):",
        "next_batch = records.next_batch()",
        "self._partition_records",
        "records = MemoryRecords(part_data[-1])",
        "for record in next_batch:",
        "if record.offset < self.next_fetch_offset:",
        "response = await self._client.send(node_id, request)",
        "for topic, partitions in request.topics:",
        "for partition, offset, _ in partitions:",
        "for partition, error_code, highwater, *part_data in partitions:",
    ),
    "aiokafka.client": ("self._metadata_max_age_ms", "self._sync_task = "),
    "aiokafka.cluster": ("self._last_successful_refresh_ms = ",),
    "aiokafka.consumer.group_coordinator": ("self._coordination_task = ", "self.coordinator_id = "),
    "aiokafka.producer.producer": ("self._sender", "self.client"),
    "aiokafka.producer.sender": ("self._sender_task = ",),
    "mode.services": ("self._futures = set()", "await self._gather_futures()"),
    "mode.threads": (
        "self._thread = ",
        "self._thread = self.Worker(self)",
        "self._thread.stop()",
        "await self._gather_remaining_tasks()",
    ),
}


def missing_names() -> list[str]:
    """Return the names that freshet relies on and the installed libraries lack; empty if there are none."""
    lost = [f"{owner.__qualname__}.{name}()" for owner, name in METHODS if not callable(getattr(owner, name, None))]
    lost += [f"{owner.__qualname__}.{name}" for owner, name in ATTRIBUTES if not _has(owner, name)]
    for module, names in SOURCES.items():
        text = inspect.getsource(__import__(module, fromlist=["_"]))
        lost += [f"{module}: {name}" for name in names if name not in text]
    return lost


def _has(owner: type, name: str) -> bool:
    """Return whether the name is a class attribute, an annotation, or assigned somewhere in the class or its bases."""
    return any(
        name in vars(base) or name in inspect.get_annotations(base) or f"self.{name}" in inspect.getsource(base)
        for base in owner.__mro__[:-1]
        if base.__module__.startswith(("faust", "aiokafka"))
    )


def check_private_names() -> None:
    """Raise SettingsError if a library does not have the tested version, or lacks a name that freshet relies on."""
    wrong = [f"{name} {version(name)} (tested: {tested})" for name, tested in PINNED.items() if version(name) != tested]
    if wrong:
        raise SettingsError(f"untested library versions are installed: {', '.join(wrong)}")
    if lost := missing_names():
        raise SettingsError(f"the installed libraries lack names that freshet relies on: {', '.join(lost)}")
