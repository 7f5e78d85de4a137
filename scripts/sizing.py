"""How many workers, partitions and bytes a load needs: `python -m scripts.sizing`. docs/sizing.md explains the formulas.

    python -m scripts.sizing --users 100e6 --events-per-day 1e9

The constants are measured (docs/benchmarks.md); give your own machine's by the options. What the formulas say is then checked by
a simulation: users of very different activity are hashed onto the partitions as Kafka does it, and the busiest worker takes its
events in micro-batches.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deploy.clients.murmur2 import murmur2

DAY: Final = 86_400
ROOM: Final = 0.5
"""Share of a worker's most events a second that is planned for at the peak: the rest is for restarts, failures and growth."""


@dataclass(frozen=True)
class Load:
    """What comes. users: with a state; events: a day; peak: the busiest second over the mean one; comments: their share."""

    users: float = 100e6
    events: float = 1e9
    peak: float = 3.0
    comments: float = 0.01

    @property
    def rate(self) -> float:
        """Events a second at the peak."""
        return self.events / DAY * self.peak


@dataclass(frozen=True)
class Measured:
    """What one worker costs, on two shared cores, 10,000 items, D 64, H 128. Replace what differs on your machine."""

    event_ms: float = 0.084
    """CPU of an event in a full micro-batch."""
    batch_ms: float = 2.5
    """CPU of a micro-batch besides its events: fetch, sends, hops between threads."""
    cycle_ms: float = 3.4
    """Shortest time from one micro-batch to the next."""
    comment_ms: float = 7.5
    """CPU of a comment of 24 words, on one core. A GPU takes its place."""
    source_bytes: float = 150
    """Of an event, with key and framing."""
    state_bytes: float = 2818
    """Of a state record of 64 events, as it is sent."""
    slate_bytes: float = 900
    """Of a slate of 10 items."""
    folder_bytes: float = 1306
    """Of such a state in a worker's folder, compacted."""
    read_back: float = 70_000
    """State records a second that a worker reads back."""
    resident_mib: float = 450
    """Resident memory of a worker, its model and catalogue included."""


@dataclass(frozen=True)
class Size:
    """What is needed. Rates are a second at the peak; bytes are for one copy."""

    rate: float
    workers: int
    partitions: int
    comment_cores: float
    users_each: float
    folder_gb_each: float
    changelog_gb: float
    in_mb: float
    changelog_mb: float
    slates_mb: float
    read_back_s: float


def most_events(measured: Measured) -> float:
    """Return the events a second with which one worker is busy all the time."""
    return 1000 / measured.event_ms


def cpu_ms(rate: float, measured: Measured) -> float:
    """Return the CPU of an event, ms, at a steady rate of one worker: the fewer come, the fewer share a micro-batch."""
    each = micro_batch(rate, measured)
    return measured.batch_ms / each + measured.event_ms


def micro_batch(rate: float, measured: Measured) -> float:
    """Return how many events a micro-batch has at a steady rate: those that come in one cycle, c = cycle + n * event."""
    arrivals = rate / 1000
    if arrivals * measured.event_ms >= 1:
        return math.inf
    return max(1.0, arrivals * measured.cycle_ms / (1 - arrivals * measured.event_ms))


def size(load: Load, measured: Measured, room: float = ROOM) -> Size:
    """Return what a load needs.

    Workers: the peak over what one may have, and one more, which may fail. Partitions, which never change: four for each
    worker of twice that load, as a power of two, so that each worker has about as many.
    """
    clicks = load.rate * (1 - load.comments)
    workers = math.ceil(clicks / (most_events(measured) * room)) + 1
    return Size(
        rate=load.rate,
        workers=workers,
        partitions=1 << math.ceil(math.log2(8 * (workers - 1))),
        comment_cores=load.rate * load.comments * measured.comment_ms / 1000 / room,
        users_each=load.users / (workers - 1),
        folder_gb_each=load.users * measured.folder_bytes / (workers - 1) / 1e9,
        changelog_gb=load.users * measured.state_bytes / 1e9,
        in_mb=load.rate * measured.source_bytes / 1e6,
        changelog_mb=load.rate * measured.state_bytes / 1e6,
        slates_mb=load.rate * measured.slate_bytes / 1e6,
        read_back_s=load.users / (workers - 1) / measured.read_back,
    )


@dataclass(frozen=True)
class Simulated:
    """Of the busiest worker. share: of all events, over the mean; waiting: ms from arrival until the slate is written."""

    share: float
    users: float
    rate: float
    batch: float
    p50: float
    p99: float


def simulate(
    load: Load, measured: Measured, workers: int, partitions: int, users: int = 50_000, seed: int = 0
) -> Simulated:
    """Hash `users` onto partitions, divide these among workers, and let the busiest one work for some seconds.

    Users' activity is log-normal with sigma 1.5: the busiest hundredth of them sends a fifth of all events.
    """
    chance = np.random.default_rng(seed)
    activity = chance.lognormal(0, 1.5, users)
    place = np.array([murmur2(b"user%d" % user) % partitions for user in range(users)])
    owner = place % workers
    shares = np.bincount(owner, activity, workers) / activity.sum()
    counts = np.bincount(owner, minlength=workers) / users
    busiest = shares.max() * load.rate * (1 - load.comments)
    arrivals = chance.exponential(1000 / busiest, min(200_000, int(20 * busiest))).cumsum()
    waits, batches = _served(arrivals, measured)
    return Simulated(
        float(shares.max() * workers), float(counts.max() * workers), float(busiest), len(arrivals) / batches,
        *(float(one) for one in np.quantile(waits, (0.5, 0.99))),
    )  # fmt: skip


def _served(arrivals: NDArray[np.float64], measured: Measured) -> tuple[NDArray[np.float64], int]:
    """Return the wait of each event, ms, and the number of micro-batches. Each takes what has come when the one before ends."""
    waits, at, now, batches = np.empty(len(arrivals)), 0, 0.0, 0
    while at < len(arrivals):
        now = max(now, arrivals[at])
        end = min(int(np.searchsorted(arrivals, now, "right")), at + 500)
        now += measured.cycle_ms + (end - at) * measured.event_ms
        waits[at:end] = now - arrivals[at:end]
        at, batches = end, batches + 1
    return waits, batches


def table(load: Load, measured: Measured) -> list[tuple[str, str]]:
    """Return what a load needs, as rows of text."""
    found = size(load, measured)
    seen = simulate(load, measured, found.workers - 1, found.partitions)
    return [
        ("events a second, mean and peak", f"{load.events / DAY:,.0f}, {load.rate:,.0f}"),
        ("workers, one of them spare", f"{found.workers}"),
        ("partitions of each source topic", f"{found.partitions}"),
        ("cores for comments, without a GPU", f"{found.comment_cores:,.1f}"),
        ("users of a worker while one is away", f"{found.users_each / 1e6:,.1f} million"),
        ("their folder, compacted", f"{found.folder_gb_each:,.1f} GB"),
        ("memory of a worker, besides the page cache", f"{measured.resident_mib:,.0f} MiB"),
        ("to read all their states back", f"{found.read_back_s:,.0f} s"),
        ("changelog, compacted, each copy", f"{found.changelog_gb:,.0f} GB"),
        ("written to Kafka at the peak: events, changelog, slates",
         f"{found.in_mb:,.1f}, {found.changelog_mb:,.1f}, {found.slates_mb:,.1f} MB/s"),
        ("simulated: the busiest worker's events over the mean, one away", f"{seen.share:.2f}"),
        ("simulated: its events a second, and in a micro-batch", f"{seen.rate:,.0f}, {seen.batch:.0f}"),
        ("simulated: wait until the slate is written, p50 and p99", f"{seen.p50:.1f}, {seen.p99:.1f} ms"),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=float, default=Load.users, help="with a state")
    parser.add_argument("--events-per-day", type=float, default=Load.events)
    parser.add_argument("--peak", type=float, default=Load.peak, help="the busiest second over the mean one")
    parser.add_argument("--comments", type=float, default=Load.comments, help="their share of the events")
    for one in fields(Measured):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=float, default=one.default, help="measured")
    given = vars(parser.parse_args(arguments))
    load = Load(given["users"], given["events_per_day"], given["peak"], given["comments"])
    for name, value in given.items():
        share = name == "comments"
        if not (0 <= value < 1 if share else 0 < value < math.inf):
            expected = "a share from 0 to below 1" if share else "a number above 0"
            parser.error(f"--{name.replace('_', '-')}: found {value:g}, expected {expected}")
    measured = replace(Measured(), **{one.name: given[one.name] for one in fields(Measured)})
    for name, value in table(load, measured):
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
