"""What a worker requires of Kafka's topics, in one table. Creation, checks and documentation use it.

`deploy.clients.admin` creates and checks topics, `deploy.clients.topic_monitor` watches them while a worker runs, and
`scripts.reference` writes docs/kafka.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stream.settings import Settings

MIB: Final = 1 << 20
HOUR: Final = 3_600_000  # milliseconds
MAX_SOURCE: Final = 4 * MIB
MAX_LETTER: Final = MAX_SOURCE + (64 << 10)  # a record and the headers with the error
MIN_OUTPUT: Final = 1_000_000  # bytes; a worker's record batches have 786,432 at most
MIN_KEPT: Final = 64 * MIB

UNPACKED: Final = ("uncompressed",)
"""The compression of the topics that others write. A worker can read any codec, so other topics may have any."""


class Found(NamedTuple):
    """A topic as it is.

    Attributes:
        settings: The value in force of every setting.
        replication: Copies of the partition that has the fewest.
    """

    settings: Mapping[str, str]
    replication: int


@dataclass(frozen=True)
class Need:
    """One setting of a kind of topic.

    Attributes:
        setting: The setting's name.
        value: The value that `freshet topics create` and `mend` set, by the number of copies.
        fits: Whether a value is good for the topic as found.
        expected: Which values are good, in words.
        why: The reason, in words.
        made: Whether create sets it, instead of leaving the broker's default.
    """

    setting: str
    value: Callable[[int], str]
    fits: Callable[[str, Found], bool]
    expected: str
    why: str
    made: bool = True

    def met(self, found: Found) -> bool:
        try:
            return self.fits(found.settings.get(self.setting, ""), found)
        except ValueError:  # not a number
            return False


@dataclass(frozen=True)
class Kind:
    """The topics of one use.

    Attributes:
        title: Its title in the documentation.
        names: The topics' names under given settings.
        partitions: The number of partitions, in words.
        needs: The settings that a worker requires.
        single: Whether the topic has one partition; else it has as many as the first source topic.
    """

    title: str
    names: Callable[[Settings], tuple[str, ...]]
    partitions: str
    needs: tuple[Need, ...]
    single: bool = False

    def config(self, replication: int) -> dict[str, str]:
        """Return the settings with which the topic is created."""
        return {need.setting: need.value(replication) for need in self.needs if need.made}


def _one_of(setting: str, values: tuple[str, ...], why: str) -> Need:
    """Return a need for one of `values`; the first is the one that is set. A list's parts may come in any order."""
    allowed = [set(value.split(",")) for value in values]
    expected = " or ".join(values)
    return Need(setting, lambda _: values[0], lambda value, _: set(value.split(",")) in allowed, expected, why)


def _at_most(setting: str, most: int, why: str) -> Need:
    return Need(setting, lambda _: str(most), lambda value, _: int(value) <= most, f"at most {most}", why)


def _at_least(setting: str, least: int, value: int, why: str) -> Need:
    return Need(setting, lambda _: str(value), lambda found, _: int(found) >= least, f"at least {least}", why)


def _kept(setting: str, least: int, value: int, why: str) -> Need:
    """Return a need for a retention limit, which matters only if the policy deletes."""

    def fits(found: str, topic: Found) -> bool:
        return "delete" not in topic.settings.get("cleanup.policy", "") or int(found) == -1 or int(found) >= least

    return Need(setting, lambda _: str(value), fits, f"-1 or at least {least}", why, made=False)


def _stamped() -> Need:
    """Return the need for the broker's time in topics that workers write: a worker's clock may be wrong."""
    why = "Records are kept, compacted and found by the broker's time, since a worker's clock may be wrong."
    return _one_of("message.timestamp.type", ("LogAppendTime",), why)


def _in_sync() -> Need:
    return Need(
        "min.insync.replicas",
        lambda replication: "2" if replication >= 3 else "1",
        lambda value, topic: (2 if topic.replication >= 3 else 1) <= int(value) <= topic.replication,
        "at most the number of copies, and at least 2 if there are 3 or more",
        "Above the number of copies, nothing can be written. With 1 of 3, acknowledged records are lost with one broker.",
    )


def _retention(what: str) -> tuple[Need, Need]:
    why = f"{what} With tighter limits, a short outage is enough for that."
    return (
        _kept("retention.ms", HOUR, 7 * 24 * HOUR, why),
        _kept("retention.bytes", MIN_KEPT, -1, f"{what} The limit holds for each partition."),
    )


KINDS: Final = (
    Kind(
        "sources: clicks, ratings, comments",
        lambda settings: settings.sources,
        "any number, the same for all three; it must never change",
        (
            _one_of(
                "cleanup.policy",
                ("delete",),
                "Compaction removes all but each user's last event. Events that were not read before are lost.",
            ),
            *_retention("Events that are deleted before they are read are lost (exit code 76)."),
            _one_of(
                "compression.type",
                UNPACKED,
                "The broker decompresses, so `max.message.bytes` limits the size of a record.",
            ),
            _one_of("message.timestamp.type", ("LogAppendTime",), "The append time shows whether `time` can be right."),
            _at_most("max.message.bytes", MAX_SOURCE, "A dead letter must hold the whole record and its headers."),
            _in_sync(),
        ),
    ),
    Kind(
        "items",
        lambda settings: (settings.items_topic,),
        "1",
        (
            _one_of(
                "cleanup.policy",
                ("compact",),
                "Every start reads the catalogue from this topic. Retention would remove live items.",
            ),
            _one_of("compression.type", UNPACKED, "As for the sources."),
            _at_most("max.message.bytes", MAX_SOURCE, "It limits the memory that a worker needs for one record."),
            _in_sync(),
        ),
        single=True,
    ),
    Kind(
        "rules",
        lambda settings: (settings.rules_topic,),
        "1",
        (
            _one_of(
                "cleanup.policy",
                ("compact",),
                "Every start reads the rules from this topic. Retention would remove rules that are in force.",
            ),
            _one_of("compression.type", UNPACKED, "As for the sources."),
            _at_most("max.message.bytes", MAX_SOURCE, "It limits the memory that a worker needs for one record."),
            _in_sync(),
        ),
        single=True,
    ),
    Kind(
        "tables",
        lambda settings: (settings.tables_topic,),
        "1",
        (
            _one_of(
                "cleanup.policy",
                ("compact",),
                "Every start reads the newest epoch from this topic. Retention would remove the rows of items that rest.",
            ),
            _stamped(),
            _at_least("max.message.bytes", MIN_OUTPUT, MIB, "A batch of rows must fit."),
            _in_sync(),
        ),
        single=True,
    ),
    Kind(
        "bundles",
        lambda settings: (settings.bundles_topic,),
        "1",
        (
            _one_of(
                "cleanup.policy",
                ("delete",),
                "Compaction would remove all but the last activation. Which bundle made which slate would no longer be known.",
            ),
            _one_of(
                "retention.ms", ("-1",), "Every start reads from this topic which bundle to serve: its history stays."
            ),
            _one_of("retention.bytes", ("-1",), "As for `retention.ms`. The topic stays small."),
            _stamped(),
            _in_sync(),
        ),
        single=True,
    ),
    Kind(
        "recommendations",
        lambda settings: (settings.recommendations_topic,),
        "as the sources",
        (
            _one_of(
                "cleanup.policy",
                ("compact",),
                "Each user's newest slate must stay. Retention would remove the slates of users who are inactive for a while.",
            ),
            _stamped(),
            _at_least("max.message.bytes", MIN_OUTPUT, MIB, "A batch of slates must fit."),
            _in_sync(),
        ),
    ),
    Kind(
        "dead-letters",
        lambda settings: (settings.dead_letters_topic,),
        "as the sources",
        (
            _one_of("cleanup.policy", ("delete",), "Compaction would remove all but each user's last dead letter."),
            *_retention("Dead letters that are deleted before anyone looks at them cannot be redriven."),
            _stamped(),
            _at_least(
                "max.message.bytes", MAX_LETTER, MAX_LETTER, "The largest source record and its headers must fit."
            ),
            _in_sync(),
        ),
    ),
    Kind(
        "forgotten",
        lambda settings: (settings.forgotten_topic,),
        "1",
        (
            _one_of(
                "cleanup.policy",
                ("compact",),
                "The record that a user was forgotten must stay. Each has a key of its own; compaction removes repeats.",
            ),
            _stamped(),
            _in_sync(),
        ),
        single=True,
    ),
    Kind(
        "the changelog: APP_ID-interest-changelog",
        lambda settings: (settings.changelog_topic,),
        "as the sources",
        (
            _one_of("cleanup.policy", ("compact",), "All states are recovered from it. Retention would delete states."),
            _stamped(),
            _at_least("max.message.bytes", MIN_OUTPUT, 4 * MIB, "A batch of states must fit."),
            _in_sync(),
        ),
    ),
)
"""All kinds, the source topics first."""


def kind_of(settings: Settings, topic: str) -> Kind:
    """Return the kind of a topic of these settings. Raises KeyError for any other topic."""
    for kind in KINDS:
        if topic in kind.names(settings):
            return kind
    raise KeyError(topic)


def wrong(settings: Settings, topic: str, found: Found) -> list[tuple[Need, str]]:
    """Return the needs that a topic does not meet, each with the value that was found."""
    return [
        (need, found.settings.get(need.setting, "")) for need in kind_of(settings, topic).needs if not need.met(found)
    ]


def mended(settings: Settings, topic: str, found: Found) -> dict[str, str]:
    """Return the settings to change -> their values.

    This includes settings that matter only once others are changed, such as retention if the policy deletes.
    """
    values: dict[str, str] = {}
    while True:
        then = Found({**found.settings, **values}, found.replication)
        more = {need.setting: need.value(found.replication) for need, _ in wrong(settings, topic, then)}
        if not more.keys() - values.keys():
            return values
        values |= more
