"""What a worker needs of Kafka's topics, as one table: made so, checked at the start and while a worker runs, and documented.

`deploy.clients.admin` makes and checks, `deploy.clients.topic_monitor` watches, `scripts.reference` writes docs/kafka.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stream.settings import Settings

MIB: Final = 1 << 20
HOUR: Final = 3_600_000  # milliseconds
MAX_SOURCE: Final = 4 * MIB
MAX_LETTER: Final = MAX_SOURCE + (64 << 10)  # a record and the headers that say what is wrong
MIN_OUTPUT: Final = 1_000_000  # bytes; a worker's record batches have 786,432 at most
MIN_KEPT: Final = 64 * MIB

UNPACKED: Final = ("uncompressed",)
"""Of the topics that others write. Any codec can be read, so on the others any setting will do."""


class Found(NamedTuple):
    """A topic as it is. settings: every setting's value in force; replication: copies of each partition, the fewest."""

    settings: Mapping[str, str]
    replication: int


@dataclass(frozen=True)
class Need:
    """One setting of a kind of topic.

    value: what `freshet topics create` and `mend` set, by the number of copies; made: create sets it, rather than leave the
    broker's default; fits: whether a value does, on the topic found; expected, why: in words.
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
        except ValueError:  # no number
            return False


@dataclass(frozen=True)
class Kind:
    """Topics of one use. names: of these settings; partitions: in words; single: it has one, else as many as the first source."""

    title: str
    names: Callable[[Settings], tuple[str, ...]]
    partitions: str
    needs: tuple[Need, ...]
    single: bool = False

    def config(self, replication: int) -> dict[str, str]:
        """What the topic is made with."""
        return {need.setting: need.value(replication) for need in self.needs if need.made}


def _one_of(setting: str, values: tuple[str, ...], why: str) -> Need:
    """The first of `values` is what is set; the parts of a list may come in any order."""
    allowed = [set(value.split(",")) for value in values]
    expected = " or ".join(values)
    return Need(setting, lambda _: values[0], lambda value, _: set(value.split(",")) in allowed, expected, why)


def _at_most(setting: str, most: int, why: str) -> Need:
    return Need(setting, lambda _: str(most), lambda value, _: int(value) <= most, f"at most {most}", why)


def _at_least(setting: str, least: int, value: int, why: str) -> Need:
    return Need(setting, lambda _: str(value), lambda found, _: int(found) >= least, f"at least {least}", why)


def _kept(setting: str, least: int, value: int, why: str) -> Need:
    """A limit of retention, which counts where the policy deletes."""

    def fits(found: str, topic: Found) -> bool:
        return "delete" not in topic.settings.get("cleanup.policy", "") or int(found) == -1 or int(found) >= least

    return Need(setting, lambda _: str(value), fits, f"-1 or at least {least}", why, made=False)


def _stamped() -> Need:
    """Of what workers write: a worker's clock may be wrong."""
    why = "Kept, compacted and found by the broker's time: a worker's clock may be wrong."
    return _one_of("message.timestamp.type", ("LogAppendTime",), why)


def _in_sync() -> Need:
    return Need(
        "min.insync.replicas",
        lambda replication: "2" if replication >= 3 else "1",
        lambda value, topic: (2 if topic.replication >= 3 else 1) <= int(value) <= topic.replication,
        "at most the number of copies, at least 2 where there are 3 or more",
        "With more than there are copies nothing can be written; with 1 of 3 what was acknowledged is gone with one broker.",
    )


def _retention(what: str) -> tuple[Need, Need]:
    why = f"{what} With bounds this tight a short outage is enough."
    return (
        _kept("retention.ms", HOUR, 7 * 24 * HOUR, why),
        _kept("retention.bytes", MIN_KEPT, -1, f"{what} The limit holds for each partition."),
    )


KINDS: Final = (
    Kind(
        "sources: clicks, ratings, comments",
        lambda settings: settings.sources,
        "any number, the same for all three; never changed",
        (
            _one_of(
                "cleanup.policy",
                ("delete",),
                "Compaction removes all but each user's last event; what was not read by then is lost.",
            ),
            *_retention("Events deleted before they were read are lost (exit code 76)."),
            _one_of(
                "compression.type", UNPACKED, "The broker unpacks: `max.message.bytes` bounds what a record holds."
            ),
            _one_of(
                "message.timestamp.type", ("LogAppendTime",), "Whether `time` can be right is told by the append time."
            ),
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
                "Every start reads the catalogue from here; retention would remove live items.",
            ),
            _one_of("compression.type", UNPACKED, "As for the sources."),
            _at_most(
                "max.message.bytes", MAX_SOURCE, "What a worker takes into memory for one record is bounded by it."
            ),
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
                "Each user's newest slate must stay: retention would remove those of users who do nothing for a while.",
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
            *_retention("Dead letters deleted before anybody looked cannot be sent back."),
            _stamped(),
            _at_least(
                "max.message.bytes", MAX_LETTER, MAX_LETTER, "The largest source record and its headers must fit."
            ),
            _in_sync(),
        ),
    ),
    Kind(
        "the changelog: APP_ID-interest-changelog",
        lambda settings: (settings.changelog_topic,),
        "as the sources",
        (
            _one_of(
                "cleanup.policy", ("compact",), "It is the truth about every state: retention would delete states."
            ),
            _stamped(),
            _at_least("max.message.bytes", MIN_OUTPUT, 4 * MIB, "A batch of states must fit."),
            _in_sync(),
        ),
    ),
)
"""The sources first."""


def kind_of(settings: Settings, topic: str) -> Kind:
    """The kind of a topic of these settings. Raises KeyError for any other."""
    for kind in KINDS:
        if topic in kind.names(settings):
            return kind
    raise KeyError(topic)


def wrong(settings: Settings, topic: str, found: Found) -> list[tuple[Need, str]]:
    """What does not fit -> the need and the value that was found."""
    return [
        (need, found.settings.get(need.setting, "")) for need in kind_of(settings, topic).needs if not need.met(found)
    ]


def mended(settings: Settings, topic: str, found: Found) -> dict[str, str]:
    """What is to be set -> its value: also what counts only once the rest is set, as retention does where the policy deletes."""
    values: dict[str, str] = {}
    while True:
        then = Found({**found.settings, **values}, found.replication)
        more = {need.setting: need.value(found.replication) for need, _ in wrong(settings, topic, then)}
        if not more.keys() - values.keys():
            return values
        values |= more
