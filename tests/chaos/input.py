"""Faults 18 to 22: records that nobody can take, or that are odd, among good ones; each is told of, nothing else is lost."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

from confluent_kafka import Producer
from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError

from deploy.clients.arguments import client_arguments
from deploy.clients.murmur2 import murmur2
from deploy.verify import Report
from stream.core.messages import MAX_TEXT
from stream.core.state import MAX_RECENT, MAX_SEEN, Interest, decode, encode
from stream.settings import Settings
from tests.bench.processes import resident_mib
from tests.chaos.cardinality import check_log, series
from tests.chaos.trial import Trial
from tests.poison import KEY, NOW, ODD, OLDEST, POISON, YEAR, Headers, Poison, body
from tests.worker_process import read_all, slates, until

LARGEST = 4 << 20  # bytes of a record batch that a source topic takes
FRAME = 61 + 30  # bytes of a record batch around one record's key and value at most
Place = tuple[str, int, int]


class Sender:
    """Raw records, with a line in the trial's producer log or counted as bad."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.places: dict[Place, str] = {}  # of the bad ones: what was sent there
        self._producer = KafkaProducer(
            acks="all", linger_ms=2, max_request_size=8 << 20, **client_arguments(trial.settings)
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()

    def put(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers, *, elsewhere: bool = False
    ) -> Any:
        settings = self._trial.settings
        home = murmur2(key or b"") % settings.partitions
        partition = (home + 1) % settings.partitions if elsewhere else home
        return self._producer.send(settings.prefix + topic, key=key, value=value, partition=partition, headers=headers)

    def bad(self, name: str, one: Poison) -> Any:
        future = self.put(one.topic, one.key, one.value, one.headers, elsewhere=one.elsewhere)
        self._trial.bad += 1
        future.add_callback(
            lambda position: self.places.update({(position.topic, position.partition, position.offset): name})
        )
        return future

    def good(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        future = self.put(topic, key, value, list(headers))
        self._trial.traffic.sends.append((self._trial.settings.prefix + topic, key.decode(), value, future))
        return future

    def again(self, topic: str, key: bytes, value: bytes) -> None:
        """To be counted as a duplicate."""
        self.put(topic, key, value, [])
        self._trial.duplicates += 1

    def flush(self) -> None:
        self._producer.flush(60)


def poison(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, rounds: int, workers: int, kill: bool, rate: float
) -> None:
    """Fault 18: every kind of poison and every odd record, `rounds` times in seeded order, in traffic; a SIGKILL between."""
    settings = settings.model_copy(update={"misplaced": "dead-letter"})
    draw = random.Random(seed)
    with (
        Trial(18, "poison", seed, settings, bundles, folder, workers=workers, rate=rate) as trial,
        Sender(trial) as sender,
    ):
        names = [(name, which) for which in (POISON, ODD) for name in which] * rounds
        draw.shuffle(names)
        middle = draw.randrange(len(names) // 4, 3 * len(names) // 4)
        for number, (name, which) in enumerate(names):
            if which is POISON:
                sender.bad(name, POISON[name])
            else:
                odd = ODD[name]
                sender.good(odd.topic, odd.key, odd.value, odd.headers)
            if draw.random() < 0.2:
                trial.pause(0, 0.1)
            if kill and number == middle:
                trial.kill(trial.one())
        sender.flush()
        dead_letters = all_dead_letters(trial, sender)
        for position, name in sender.places.items():
            for record, headers in dead_letters[position]:
                check_letter(name, POISON[name], record, headers)
        repeats = sum(map(len, dead_letters.values())) - len(dead_letters)
        if not kill:
            assert repeats == 0
            check_counts(trial, sender)
        for worker in trial.workers:
            check_log(worker)
        trial.note = (
            f"{len(POISON)} kinds of poison and {len(ODD)} odd records, {rounds} times in seeded order: {len(dead_letters)} dead "
            f"letters with stage, reason and field, {repeats} written again, the odd ones applied"
        )


def check_letter(name: str, one: Poison, record: Any, headers: dict[str, str]) -> None:
    """A dead letter names what is wrong and holds what was received."""
    assert (headers["stage"], headers["reason"], headers["field"]) == (one.stage, one.reason, one.field), name
    assert (record.key, record.value, headers["truncated"]) == (one.key, one.value, "false"), name
    assert headers["message"].isprintable(), name
    assert len(headers["message"]) <= 512, name
    own = [pair for pair in record.headers if not pair[0].startswith("__rec.errors.")]
    sent = [pair for pair in one.headers if not pair[0].startswith("__rec.errors.")]
    if name == "header of 1 MiB":
        sent = [pair for pair in sent if len(pair[1]) < 32 << 10]
        own = [pair for pair in own if pair[0] != "short"] + [pair for pair in own if pair[0] == "short"]
        assert own in ([], sent), name  # what does not fit is left out
    elif name == "hostile replay":
        assert own == sent[:1], name  # only the first counts
    else:
        assert own == sent, name


def check_counts(trial: Trial, sender: Sender) -> None:
    """The metrics count each letter under its topic, stage and reason."""
    prefix = trial.settings.prefix
    wanted: Counter[tuple[str, str, str]] = Counter()
    for name in sender.places.values():
        wanted[prefix + POISON[name].topic, POISON[name].stage, POISON[name].reason] += 1
    for (topic, stage, reason), count in wanted.items():
        found = trial.metric("freshet_dead_letters_total", topic=topic, stage=stage, reason=reason)
        assert found == count, f"{topic} {stage} {reason}: {found:g} counted, {count} sent"


def dead_letters_by_place(settings: Settings) -> dict[Place, list[tuple[Any, dict[str, str]]]]:
    """Source place -> its dead letters with their headers, without the prefix of the names."""
    found: dict[Place, list[tuple[Any, dict[str, str]]]] = {}
    for record in read_all(settings, settings.dead_letters_topic):
        headers = {
            n.removeprefix("__rec.errors."): v.decode() for n, v in record.headers if n.startswith("__rec.errors.")
        }
        found.setdefault((headers["topic"], int(headers["partition"]), int(headers["offset"])), []).append(
            (record, headers)
        )
    return found


def all_dead_letters(
    trial: Trial, sender: Sender, seconds: float = 60
) -> dict[Place, list[tuple[Any, dict[str, str]]]]:
    """Wait until each bad record has a letter."""
    assert len(sender.places) == trial.bad, "every bad record was acknowledged"
    until(lambda: end_of(trial.settings) >= trial.bad, seconds, f"{trial.bad} dead letters")
    dead_letters: dict[Place, list[tuple[Any, dict[str, str]]]] = {}

    def complete() -> bool:
        nonlocal dead_letters
        dead_letters = dead_letters_by_place(trial.settings)
        return dead_letters.keys() >= sender.places.keys()

    until(complete, seconds, "all dead letters")
    assert dead_letters.keys() == sender.places.keys(), "a dead letter of a record that is good"
    return dead_letters


def end_of(settings: Settings) -> int:
    """How many dead letters were written."""
    from deploy.clients.log_reader import KafkaLog

    log = KafkaLog(settings)
    try:
        return sum(span.end for span in log.spans([settings.dead_letters_topic]).values())
    finally:
        log.close()


def only_poison(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, seconds: float, rate: float, workers: int, kill: bool
) -> None:
    """Fault 19: nothing but poison for `seconds`, then good traffic again."""
    settings = settings.model_copy(update={"misplaced": "dead-letter"})
    draw = random.Random(seed)
    small = [name for name, one in POISON.items() if len(one.value or b"") < 50_000 and len(one.headers) < 2]
    with Trial(19, "100 % poison", seed, settings, bundles, folder, workers=workers) as trial, Sender(trial) as sender:
        trial.traffic.paused.set()
        until(lambda: trial.metric("freshet_lag_records") == 0, 30, "lag 0")
        for _ in range(settings.partitions):  # every label is there, on every worker
            for name, one in POISON.items():
                sender.bad(name, one)
        sender.flush()
        until(lambda: trial.metric("freshet_dead_letters_total") == trial.bad, 60, "the first of each kind")
        lines = [series(worker) for worker in trial.workers]
        held = [resident_mib(worker.process.pid) for worker in trial.workers]
        at = draw.uniform(0.3, 0.7) * seconds if kill else float("inf")
        began, number, checked = time.monotonic(), 0, 0.0
        while (now := time.monotonic() - began) < seconds:
            name = draw.choice(small)
            sender.bad(name, POISON[name])
            number += 1
            if now > at:
                trial.kill(trial.one())
                at = float("inf")
            if not trial.kills and now - checked > 1:
                assert all(trial.ready(worker) for worker in trial.workers), "ready under poison"
                checked = now
            time.sleep(max(0.0, number / rate - (time.monotonic() - began)))
        sender.flush()
        trial.traffic.paused.clear()  # good events again
        trial.wait_ready()
        trial.works(100)
        dead_letters = all_dead_letters(trial, sender)
        repeats = sum(map(len, dead_letters.values())) - len(dead_letters)
        grown = max(
            resident_mib(worker.process.pid) - before for worker, before in zip(trial.workers, held, strict=True)
        )
        if not kill:
            assert repeats == 0
            check_counts(trial, sender)
            assert [series(worker) for worker in trial.workers] == lines, "as many metric series as before"
            assert grown < 300, f"{grown:.0f} MiB more than before"
        trial.note = (
            f"{number} records of poison alone in {seconds:g} s, ready meanwhile: {len(dead_letters)} dead letters, "
            f"{repeats} written again, memory {grown:+.0f} MiB; then good events were applied"
        )


def misplaced(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, kills: int, workers: int, rate: float
) -> None:
    """Fault 56: a client places keys as librdkafka does by default, by CRC-32; workers are killed while they send records on."""

    def count_forwarded(report: Report) -> None:
        trial.note = (
            f"{kills} kills; {report.forwarded} records sent on, {report.duplicates} of them twice: each counts once"
        )

    name = "records on wrong partitions"
    trial = Trial(56, name, seed, settings, bundles, folder, workers=workers, rate=rate, also=count_forwarded)
    trial.misplaces = True
    trial.traffic.events.partition = lambda key: crc32(key) % settings.partitions
    with trial:
        for _ in range(kills):
            trial.works()
            trial.pause(0.5, 2)
            trial.kill(trial.one())
        trial.wait_ready()
        trial.works(100)


def oversize(settings: Settings, bundles: Path, folder: Path, seed: int, *, workers: int, rate: float) -> None:
    """Fault 20: records as large as the topic takes, good and bad; larger ones; packed ones; the largest possible state."""
    draw = random.Random(seed)
    with (
        Trial(20, "oversize", seed, settings, bundles, folder, workers=workers, rate=rate) as trial,
        Sender(trial) as sender,
    ):
        room = LARGEST - FRAME - len(KEY)
        padded = body(pad="")
        cases: list[Callable[[], object]] = [
            lambda: sender.bad("4 MiB", Poison("clicks", KEY, b"x" * room, "decode", "malformed_json")),
            lambda: sender.bad("4 MiB of brackets", Poison("clicks", KEY, b"[" * room, "decode", "too_deep")),
            lambda: sender.good("clicks", KEY, padded[:-2] + b"x" * (room - len(padded)) + padded[-2:]),
            lambda: sender.bad("text", Poison("comments", KEY, body(text="x" * (MAX_TEXT + 1)), "validate", "too_large")),
            lambda: sender.bad("value and headers", Poison(
                "clicks", KEY, b"x" * (2 << 20), "decode", "malformed_json", headers=[("long", b"y" * (2_000_000))])),
            lambda: sender.bad("empty headers", Poison(
                "clicks", KEY, b"x" * (3 << 20), "decode", "malformed_json", headers=[("", b"")] * 300_000)),
            lambda: sender.bad("key of 4 MiB", Poison("clicks", b"k" * room, b"{}", "validate", "missing_field")),
            lambda: refused(settings, None, (KEY, b"x" * LARGEST, [])),
            lambda: refused(  # small as they travel, larger than the topic takes once they are unpacked
                settings, "gzip", (KEY, b"x" * (16 << 20), []), (b"k" * (6 << 20), b"{}", []),
                (KEY, b"{}", [("", b"")] * 3_000_000),
            ),
            lambda: packed(trial, draw),
        ]  # fmt: skip
        draw.shuffle(cases)
        for case in cases:
            case()
            trial.pause(0, 0.3)
        sender.flush()
        for position, found in all_dead_letters(trial, sender).items():
            for record, headers in found:
                assert headers["truncated"] == "false", sender.places[position]
                assert len(record.key or b"") + len(record.value or b"") > MAX_TEXT, sender.places[position]
        largest = grow(trial, sender, f"giant{seed}")
        trial.note = (
            f"{trial.bad} dead letters of up to 4 MiB whole, larger records refused by the broker, packed ones unpacked by it; "
            f"the largest possible state has {largest / 1024:.0f} KiB"
        )


def refused(settings: Settings, codec: str | None, *records: tuple[bytes, bytes, Headers]) -> None:
    """The broker takes none of these: there are no such records."""
    # a producer of its own: kafka-python's idempotent one gives up all that it has when one record is refused
    producer = KafkaProducer(compression_type=codec, max_request_size=64 << 20, **client_arguments(settings))
    try:
        for key, value, headers in records:
            try:
                producer.send(settings.sources[0], key=key, value=value, headers=headers).get(60)
            except MessageSizeTooLargeError:
                continue
            raise AssertionError("the broker took what is larger than the topic's limit")
    finally:
        producer.close()


def packed(trial: Trial, draw: random.Random) -> None:
    """Good events under each codec that producers have: the workers have none of the libraries."""
    codecs = ["gzip", "snappy", "lz4", "zstd"]
    draw.shuffle(codecs)
    for codec in codecs:
        producer = Producer({
            "bootstrap.servers": trial.settings.brokers, "compression.type": codec, "partitioner": "murmur2_random",
            "linger.ms": 50,
        })  # fmt: skip
        for _ in range(20):
            topic, message = trial.traffic.events.one(kind="click")
            value = json.dumps(message | {"pad": "x" * 1000}).encode()
            sent = Acknowledged()
            producer.produce(topic, key=message["user"].encode(), value=value, on_delivery=sent)
            trial.traffic.sends.append((topic, message["user"], value, sent))
        assert producer.flush(30) == 0


class Acknowledged:
    """confluent-kafka's delivery report, as the producer log reads a kafka-python future. `value`: where it lies."""

    def __init__(self) -> None:
        self.value: Any = None

    def __call__(self, error: Any, message: Any) -> None:
        if error is None:
            self.value = _Lies(message.partition(), message.offset())

    def succeeded(self) -> bool:
        return self.value is not None


class _Lies:
    def __init__(self, partition: int, offset: int) -> None:
        self.partition = partition
        self.offset = offset


def grow(trial: Trial, sender: Sender, user: str) -> int:
    """One user's state as large as a state can be -> bytes of its record."""
    name = (user + "\U0001f600" * MAX_RECENT * 4)[:256]
    key = name.encode()
    for number in range(MAX_SEEN + 100):
        text = f"{number}" + "\U0001f600" * 250
        more = {"scene": text, "id": text} if number >= MAX_SEEN else {}
        event = {"user": name, "item": text if more else f"n{number}", "time": NOW} | more
        sender.good("clicks", key, json.dumps(event, ensure_ascii=False).encode())
    sender.flush()

    def state() -> Interest | None:
        last = None
        for record in read_all(trial.settings, trial.settings.changelog_topic):
            if record.key == key:
                last = record.value
        found = decode(last) if last else None
        return found if found and found.seq == MAX_SEEN + 100 else None

    found: Interest = until(state, 60, "the largest state is in the changelog")
    assert (len(found.seen_hashes()), found.recent_count) == (MAX_SEEN, MAX_RECENT)
    size = len(encode(found))
    assert size > MAX_RECENT * 3 * 1000 + 4 * MAX_SEEN
    return size


def strangers(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, seconds: float, workers: int, rate: float
) -> None:
    """Fault 21: new users all the time, unknown items; items that are removed, or not available, and come back."""
    draw = random.Random(seed)
    with Trial(21, "unknown and removed", seed, settings, bundles, folder, workers=workers, rate=rate) as trial:
        gone = draw.sample([f"item-{number}" for number in range(1, 51)], 40)
        removed, hidden = gone[:20], gone[20:]
        began, number = time.monotonic(), 0
        away: tuple[int, int] | None = None
        back = -1
        turn_away, turn_back = draw.uniform(0.2, 0.35) * seconds, draw.uniform(0.55, 0.7) * seconds
        while (now := time.monotonic() - began) < seconds:
            number += 1
            topic, message = trial.traffic.events.one(
                user=f"new-{seed}-{number}", item=f"other-{number % 500}", kind="click"
            )
            trial.traffic.put(topic, message)
            topic, message = trial.traffic.events.one(user=f"new-{seed}-{number}", item=draw.choice(gone))
            trial.traffic.put(topic, message)
            if away is None and now > turn_away:
                away = publish(trial, dict.fromkeys(removed) | {item: available(item, False) for item in hidden})
            if away is not None and back < 0 and now > turn_back:
                back, _ = publish(trial, {item: available(item, True) for item in gone})
            time.sleep(0.01)
        assert away is not None
        assert back > 0
        trial.works(50)
        assert trial.metric("freshet_unknown_items_total") > 0
        before, without, after = seen_while_away(trial.settings, set(gone), away[1], back)
        trial.note = (
            f"{number} new users, unknown items folded; 40 of 50 items removed or unavailable: in {before} slates before, in "
            f"none of {without} made without them, in {after} once they were back"
        )


def available(item: str, there: bool) -> bytes:
    return json.dumps({"item": item, "title": f"Item {item}", "text": "a thing", "available": there}).encode()


def publish(trial: Trial, items: dict[str, bytes | None]) -> tuple[int, int]:
    """-> offsets of the first and the last record in the items topic."""
    producer = trial.traffic.events.producer
    futures = [
        producer.send(trial.settings.items_topic, key=item.encode(), value=value) for item, value in items.items()
    ]
    offsets = [future.get(30).offset for future in futures]
    return min(offsets), max(offsets)


def seen_while_away(settings: Settings, gone: set[str], left: int, back: int) -> tuple[int, int, int]:
    """Slates with such an item before it left; slates without, all of those made while away; slates with, once back."""
    before = without = after = 0
    for slate in (*slates(settings), *slates(settings, "*")):
        shown = gone & {one["item"] for one in slate["items"]}
        if left <= slate["catalogue"] < back:
            assert not shown, f"catalogue {slate['catalogue']} no longer has {shown}"
            without += 1
        elif slate["catalogue"] < left:
            before += bool(shown)
        else:
            after += bool(shown)
    assert before, "no slate ever had these items"
    assert without, "no slate was made while they were away"
    assert after, "they did not come back"
    return before, without, after


def repeats(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, users: int, workers: int, kill: bool, rate: float
) -> None:
    """Fault 22: ids that come again, in one topic and across topics; odd times in any order."""
    draw = random.Random(seed)
    with (
        Trial(22, "duplicates and times", seed, settings, bundles, folder, workers=workers, rate=rate) as trial,
        Sender(trial) as sender,
    ):
        streams = [script(trial, sender, f"twice-{seed}-{number}", draw) for number in range(users)]
        streams += [across(sender, f"across-{seed}-{number}", draw) for number in range(users)]
        stop = draw.randrange(50, 50 * users)
        steps = 0
        while streams:  # the users' scripts, woven together
            stream = draw.choice(streams)
            if next(stream, None) is None:
                streams.remove(stream)
            steps += 1
            if kill and steps == stop:
                sender.flush()
                trial.kill(trial.one())
            if steps % 40 == 0:
                trial.pause(0, 0.05)
        sender.flush()
        dead_letters = all_dead_letters(trial, sender)
        for found in dead_letters.values():
            for _, headers in found:
                assert (headers["field"], headers["reason"]) in (
                    ("time", "far_future"),
                    ("time", "far_past"),
                    ("time", "out_of_range"),
                )
        if not kill:
            counted = partial(trial.metric, "freshet_events_total", outcome="duplicate")
            until(lambda: counted() >= trial.duplicates, 60, f"{trial.duplicates} duplicates")
            assert counted() == trial.duplicates
        until(lambda: trial.metric("freshet_late_events_total") > 0, 30, "late events are counted")
        trial.note = (
            f"{trial.duplicates} ids that came again within 64 events, in one topic and across, counted as duplicates, "
            f"{users} later ones applied; {len(dead_letters)} dead letters of times -1, 1970, in seconds, +10 years; "
            "late ones applied"
        )


def script(trial: Trial, sender: Sender, user: str, draw: random.Random) -> Iterator[int]:
    """One user's clicks, one a step. An `id` counts as seen while it is among the user's last 64 events."""
    key = user.encode()
    sent = 0

    def event(**fields: Any) -> bytes:
        nonlocal sent
        sent += 1
        return odd_time(draw, user=user, item=f"item-{1 + sent % 50}", **fields)

    for index in range(64):
        sender.good("clicks", key, event(id=f"{user}/{index}"))
        yield index
    for index in draw.sample(range(64), 5):  # all of them are among the last 64
        sender.again("clicks", key, event(id=f"{user}/{index}"))
        yield index
    sender.good("clicks", key, event(id=f"{user}/new"))  # pushes out the first one
    sender.good("clicks", key, event(id=f"{user}/0"))  # an event again, and pushes out the second one
    sender.again("clicks", key, event(id=f"{user}/2"))
    yield 0
    same = event()
    for _ in range(3):  # without an id each record is an event of its own
        sender.good("clicks", key, same)
        yield 0
    for wrong in (-1, 0, NOW // 1000, NOW + 10 * YEAR, NOW + 3 * 3_600_000):
        reason = "out_of_range" if wrong < 0 else "far_past" if wrong < OLDEST else "far_future"
        sender.bad(f"time {wrong}", Poison("clicks", key, event(time=wrong), "validate", reason, "time"))
        yield 0


def across(sender: Sender, user: str, draw: random.Random) -> Iterator[int]:
    """One user's events, each in all three topics under one `id`: whichever is folded first counts.

    20 ids, so all are among the last 64 however the topics are read, one far ahead of another after a kill.
    """
    for index in range(20):
        topics = ["clicks", "ratings", "comments"]
        draw.shuffle(topics)
        for number, topic in enumerate(topics):
            value = odd_time(draw, user=user, item=f"item-{1 + index}", id=f"{user}/{index}", value=4.0, text="good")
            (sender.again if number else sender.good)(topic, user.encode(), value)
        yield index


def odd_time(draw: random.Random, **fields: Any) -> bytes:
    """An event of now, of some days or years ago, of the oldest that is taken, or of almost an hour from now."""
    moment = draw.choice((NOW, NOW - draw.randrange(10**9), OLDEST, NOW - 10 * YEAR, NOW + 59 * 60_000))
    return json.dumps({"time": moment} | fields).encode()
