"""docs/reliability.md, made from what the chaos suite recorded and from nothing else: python -m tests.chaos.report

What the page is made of stands beside it (docs/reliability.jsonl, docs/rivals.jsonl), so that a run of some seeds adds to it. Of
each fault, scenario and seed the newest outcome counts. A fault without five seeds is named as not shown in full.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tests.bench.machine import describe
from tests.chaos import outcomes
from tests.chaos.outcomes import Outcome, Rival

Row = TypeVar("Row", Outcome, Rival)
DOCS = Path(__file__).resolve().parents[2] / "docs"

FAULTS = {
    1: ("A worker is killed (SIGKILL) in the middle of a batch", "processes"),
    2: ("Killed at named points: after each acknowledgement, before RocksDB, before the commit", "processes"),
    3: ("Killed, and its data folder deleted", "processes"),
    4: ("Asked to stop (SIGTERM) under load", "processes"),
    5: ("Workers come and go", "processes"),
    6: ("A rebalance, or a crash, before the first commit", "processes"),
    7: ("A worker stands still (SIGSTOP) past its session, and wakes up", "processes"),
    8: ("The broker stands still for 5, 30, 120 s", "broker_faults"),
    9: ("The broker stands still, the workers are killed, their folders deleted", "broker_faults"),
    10: ("The broker is stopped, killed, or down at the start", "broker_faults"),
    11: ("A slow, resetting, silent network", "broker_faults"),
    12: ("The disk is full", "disk"),
    13: ("A bit of an SST file flips", "disk"),
    14: ("RocksDB's MANIFEST is cut, CURRENT or a file is missing", "disk"),
    15: ("The changelog is cut off, with the data folder or without", "disk"),
    16: ("A source topic is recreated, or deleted records were never read", "broker_faults"),
    17: ("A topic is missing, partition counts differ, partitions are added", "broker_faults"),
    18: ("Poison", "input"),
    19: ("Nothing but poison for a minute", "input"),
    20: ("Records as large as the topic takes, and larger than a field may be", "input"),
    21: ("Unknown users, unknown and removed items", "input"),
    22: ("Duplicate ids, reordering, impossible times", "input"),
    23: ("A bundle that is damaged or does not fit", "models"),
    24: ("A bundle is activated and rolled back under load, and workers are killed meanwhile", "learning"),
    25: ("No GPU where one is asked for", "models"),
    26: ("Slow inference; ten times the traffic", "models"),
    27: ("Abuse of the HTTP endpoints", "web"),
    28: ("A hundred thousand distinct values", "cardinality"),
    29: ("Line breaks, escape sequences and JSON in every field", "cardinality"),
    30: ("Secrets where they could show", "security"),
    31: ("SASL_SSL and ACLs: wrong password, certificate, missing right", "security"),
    32: ("Unread records are deleted under a running worker", "gaps"),
    33: ("The same app_id, another prefix", "topics"),
    34: ("A data folder of another cluster or app_id", "topics"),
    35: ("The changelog, items, recommendations or dead letters are deleted or recreated under a worker", "topics"),
    36: ("Something of a worker ends or stands still that must not; a clock ahead at the start", "life"),
    37: ("Topics compressed with each codec, switched under the workers", "life"),
    38: ("Asked to stop (SIGTERM) during the start", "life"),
    39: ("Ids that are the places of other events", "input"),
    40: ("Clocks that are wrong or jump, records of long ago", "clocks"),
    41: ("Settings of topics are changed, under a worker and before its start", "topics"),
    42: ("One user floods comments, or clicks behind comments", "fairness"),
    43: ("A GPU's TopK gives padding back where fewer items are left than a slate has", "topk"),
    44: ("A producer writes in transactions: committed, aborted, open, markers last", "gaps"),
    45: ("Last words: no memory, no descriptors, no broker, golden vectors that never end", "life"),
    46: ("Forged claims, states, slates and tombstones", "input"),
    50: ("A leader or the group's coordinator is killed, in a cluster of three", "cluster"),
    51: ("Two of three nodes are down", "cluster"),
    52: ("The active controller is killed", "cluster"),
    53: ("A rolling restart of all nodes, and a reassignment of partitions", "cluster"),
    54: ("One node of three behind a slow line that is reset again and again", "cluster"),
    55: ("An unclean leader election cuts a log off", "cluster"),
    56: ("A client puts records on wrong partitions, and workers are killed while they send them on", "input"),
    57: ("A replica of the API, a worker, the broker are killed while clients write and read at once", "gateway"),
    58: ("A tally is killed while it counts and publishes", "learning"),
    59: ("A capture is killed while it writes", "learning"),
}
"""Number -> what happens, and the test file tests/chaos/test_NAME.py."""

SEEDS = 5
"""The long form runs at least so many of each."""

INTRO = """\
# Reliability, as measured

Made by `python -m tests.chaos.report` from what the last runs of `make chaos` recorded; not written by hand. Each row is a
fault that was injected into real workers on a real Apache Kafka, real RocksDB and ONNX Runtime, under traffic, once a seed.
A trial counts only where at its end every worker was ready within 60 s of the last fault, everything that the producer had
got acknowledged (by its ledger) was committed, lag was 0, memory was bounded, every worker stopped cleanly within 30 s, and
[`freshet verify`](verify.md) was green over topics, ledger and RocksDB folders: 0 lost, 0 double, 0 uncovered. Where
a fault must make a worker refuse or stop, the trial holds it to the exit code and to the last line of its log.
A trial that fails leaves no row: a seed that is missing here failed or was not run.

*Repeats* are slates sent again, flagged `replay`. *Unavailable* is the longest time in which any partition's users got no
slate: it holds the fault itself (a broker that stands still for two minutes answers nobody) and, after a kill, the restart of
the worker. Everything shares two cores. To repeat: `.venv/bin/python -m pytest -m chaos FILE`, with FILE as in the
last column; `-k 'kills and 3'` takes the tests of that name with seed 3.
"""

RIVALS = """\
## The same kills against others

tests/rivals says how each keeps, for every user, which of the user's numbered events it has applied and how often; judged by the
last state of each user in its changelog, once it had committed everything, or 90 s after the last event where it did not.
Same events, rate, instants of SIGKILL and deleted folders, partitions, session timeout, restart at once.
"""


def main() -> None:
    found = kept(DOCS / "reliability.jsonl", outcomes.read)
    rivals = kept(DOCS / "rivals.jsonl", outcomes.read_rivals)
    (DOCS / "reliability.md").write_text(text(found, rivals), "utf-8")
    short = missing(found)
    print(f"docs/reliability.md: {len(found)} outcomes, {len(rivals)} of rivals")
    if short:
        print("fewer than five seeds: " + ", ".join(short), file=sys.stderr)
        sys.exit(1)


def kept(page: Path, read: Callable[[Path], Iterator[Row]]) -> list[Row]:
    """What was recorded before and since; from now on it lies in `page`."""
    found = latest(chain(read(page), read(outcomes.file(page.stem))))
    page.write_text("".join(json.dumps(asdict(one)) + "\n" for one in found), "utf-8")
    return found


def latest(found: Iterable[Row]) -> list[Row]:
    """The newest one of each scenario and seed; of one day, the last."""
    kept = {one.key: one for one in sorted(found, key=lambda one: one.day)}
    return [kept[key] for key in sorted(kept)]


def missing(found: Sequence[Outcome]) -> list[str]:
    """Faults with fewer seeds than SEEDS in every scenario."""
    seeds: dict[int, set[int]] = {}
    for one in found:
        seeds.setdefault(one.fault, set()).add(one.seed)
    return [f"fault {fault} ({len(seeds.get(fault, ()))})" for fault in FAULTS if len(seeds.get(fault, ())) < SEEDS]


def text(found: Sequence[Outcome], rivals: Sequence[Rival]) -> str:
    """The page."""
    faults = [one for one in found if one.fault]
    others = [one for one in found if not one.fault]
    parts = [INTRO, totals(faults), table(faults)]
    parts += notes(faults, others)
    if rivals:
        parts.append(beside(rivals))
    return "\n".join(parts).rstrip() + "\n"


def totals(found: Sequence[Outcome]) -> str:
    shown = {one.fault for one in found}
    codes = sorted({one.code for one in found})
    days = sorted({one.day for one in found})
    short = missing(found)
    lines = [
        "## Totals",
        "",
        f"{len(shown)} faults, {len(found)} trials, {sum(one.events for one in found):,} events, "
        f"{sum(one.kills for one in found):,} processes killed, {sum(one.restarts for one in found):,} restarts by the "
        f"supervisor: "
        f"**{sum(one.lost for one in found)} lost, {sum(one.double for one in found)} double, "
        f"{sum(one.uncovered for one in found)} uncovered**; {sum(one.repeats for one in found):,} slates repeated.",
        "",
        f"Run {' to '.join(sorted({days[0], days[-1]})) if days else 'never'} on {machine()}. "
        f"`stream/` as of {', '.join(f'`{code}`' for code in codes)} (git's hash of the folder).",
    ]
    if short:
        lines += ["", f"**Not shown in full** (fewer than {SEEDS} seeds): {', '.join(short)}."]
    return "\n".join(lines) + "\n"


def table(found: Sequence[Outcome]) -> str:
    head = ("#", "fault: scenario", "seeds", "events", "lost", "double", "uncovered", "repeats", "kills", "restarts",
            "unavailable, s: median, worst", "file")  # fmt: skip
    lines = ["## Fault by fault", "", cells(head), cells(["---"] * len(head))]
    for fault, (what, family) in FAULTS.items():
        names = sorted({one.name for one in found if one.fault == fault})
        for name in names:
            some = [one for one in found if (one.fault, one.name) == (fault, name)]
            lines.append(row(fault, f"{what}: {name}" if len(names) > 1 else what, family, some))
    return "\n".join(lines) + "\n"


def row(fault: int, what: str, family: str, some: Sequence[Outcome]) -> str:
    gaps = [one.unavailable for one in some if one.unavailable]
    longest = f"{statistics.median(gaps):.1f}, {max(gaps):.1f}" if gaps else ""
    return cells(
        (
            fault, what, len({one.seed for one in some}), f"{sum(one.events for one in some):,}",
            sum(one.lost for one in some), sum(one.double for one in some), sum(one.uncovered for one in some),
            f"{sum(one.repeats for one in some):,}", sum(one.kills for one in some), sum(one.restarts for one in some),
            longest, f"`tests/chaos/test_{family}.py`",
        )
    )  # fmt: skip


def cells(values: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"


def notes(faults: Sequence[Outcome], others: Sequence[Outcome]) -> list[str]:
    """One line a scenario: what its first seed saw."""
    lines = ["## What was done and seen", ""]
    for fault, (what, _) in FAULTS.items():
        first = {one.name: one for one in reversed(faults) if one.fault == fault and one.note}
        lines += [f"- {fault} {what}. {name}, seed {first[name].seed}: {first[name].note}." for name in sorted(first)]
    lines += [f"- {one.name}, seed {one.seed}: {one.note}." for one in others]
    return ["\n".join(lines).replace("..\n", ".\n") + "\n"]


def beside(rivals: Sequence[Rival]) -> str:
    """The same kills against others."""
    head = ("worker", "settings", "seeds", "events", "kills", "folders deleted", "lost", "double", "events never shown",
            "users wrong", "seeds that never committed everything")  # fmt: skip
    lines = [RIVALS, cells(head), cells(["---"] * len(head))]
    for subject, settings in sorted(
        {(one.subject, one.settings) for one in rivals}, key=lambda one: (one[0] != "freshet", one)
    ):
        some = [one for one in rivals if (one.subject, one.settings) == (subject, settings)]
        lines.append(
            cells(
                (
                    f"{subject} {some[0].version}", settings, len({one.seed for one in some}),
                    f"{sum(one.events for one in some):,}", sum(one.kills for one in some), sum(one.wipes for one in some),
                    f"{sum(one.lost for one in some):,}", f"{sum(one.double for one in some):,}",
                    f"{sum(one.unshown for one in some):,}", f"{sum(one.users_wrong for one in some):,}",
                    sum(one.caught_up < 0 for one in some),
                )
            )
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What it ran on, in one clause."""
    found = describe()
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())  # type: ignore[attr-defined]
    return f"{found['cores']} cores of an {found['processor']}, Kafka {found['kafka']}, Python {found['python']}, {packages}"


if __name__ == "__main__":
    main()
