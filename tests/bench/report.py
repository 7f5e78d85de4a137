"""The figures as lines and tables for a terminal."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from rich.table import Table

from tests.bench import fencing
from tests.bench.cost import Cost, summarise
from tests.bench.fencing import Fencing, Takeover, Writing
from tests.bench.latency import Latency
from tests.bench.recovery import Recovery


def cost_line(cost: Cost) -> str:
    return f"{cost.mix:14} {cost.case:28} {cost.cpu_us:7.0f} us/event {cost.events_per_s:8,.0f} events/s  load {cost.load:.1f}"


def cost_table(costs: list[Cost]) -> Table:
    table = Table(title="Worker CPU per event and throughput: medians; ratios are taken round by round")
    for name in ("mix", "case", "CPU us/event", "lowest-highest", "events/s", "events a batch", "RSS MiB"):
        table.add_column(name, justify="left" if name in ("mix", "case") else "right")
    table.add_column("stock CPU over this")
    for one in summarise(costs):
        low, high = one.cpu_us_range
        table.add_row(
            one.mix, one.case, f"{one.cpu_us:.0f}", f"{low:.0f}-{high:.0f}", f"{one.events_per_s:,.0f}",
            f"{one.batch:.0f}" if one.batch else "", f"{one.rss_mib:.0f}",
            "; ".join(f"{name.partition(', ')[2]} {ratio:.2f}x" for name, ratio in one.against.items()),
        )  # fmt: skip
    return table


def latency_line(one: Latency) -> str:
    return (
        f"{one.rate:5}/s {one.mix:14} p50 {one.all.p50:.1f} p99 {one.all.p99:.1f} ms; clicks p99 "
        f"{one.behaviours['click'].p99:.1f} ms; CPU {one.cpu_us:.0f} us/event; uncovered {one.uncovered}; load {one.load:.1f}"
    )


def latency_table(latencies: list[Latency]) -> Table:
    table = Table(title="Milliseconds from an event's append time until a reader has its slate: medians of the rounds")
    names = (
        "events/s",
        "mix",
        "p50",
        "p99",
        "clicks p50",
        "clicks p99",
        "others' clicks p99",
        "comments p50",
        "comments p99",
    )
    for name in (*names, "CPU us/event"):
        table.add_column(name, justify="left" if name == "mix" else "right")
    groups: dict[tuple[int, str], list[Latency]] = {}
    for one in latencies:
        groups.setdefault((one.rate, one.mix), []).append(one)
    for (rate, mix), found in groups.items():
        medians = [
            _median(found, lambda one: one.all.p50), _median(found, lambda one: one.all.p99),
            _median(found, lambda one: one.behaviours["click"].p50),
            _median(found, lambda one: one.behaviours["click"].p99), _median(found, lambda one: one.others.p99),
        ]  # fmt: skip
        with_comments = [one for one in found if "comment" in one.behaviours]
        if with_comments:
            medians += [
                _median(with_comments, lambda one: one.behaviours["comment"].p50),
                _median(with_comments, lambda one: one.behaviours["comment"].p99),
            ]
        cells = [f"{value:.1f}" for value in medians] + [""] * (7 - len(medians))
        table.add_row(str(rate), mix, *cells, f"{_median(found, lambda one: one.cpu_us):.0f}")
    return table


def _median(found: list[Latency], of: Callable[[Latency], float]) -> float:
    return statistics.median(of(one) for one in found)


def recovery_table(states: list[Recovery]) -> Table:
    table = Table(title="State and recovery", show_header=False)
    for one in states:
        for name, value in (
            (
                "state record, bytes: mean / median / largest",
                f"{one.state_mean:.0f} / {one.state_p50:.0f} / {one.state_max}",
            ),
            ("of these h and c (float16)", f"{4 * one.hidden}"),
            ("RocksDB folder, bytes per user", f"{one.disk_per_user:.0f}"),
            ("users / events / changelog records", f"{one.users:,} / {one.events:,} / {one.changelog_records:,}"),
            ("start to ready, nothing to recover", f"{one.start_empty:.1f} s"),
            ("start to ready, with its data", f"{one.start_with_data:.1f} s"),
            ("start to ready, data deleted", f"{one.start_wiped:.1f} s"),
            (f"start to ready after SIGKILL (session {one.session_timeout:g} s)", f"{one.start_after_kill:.1f} s"),
            ("start to ready, stock Faust with the same records, data deleted", f"{one.stock_start_wiped:.1f} s"),
            ("recovery, changelog records/s", f"{one.records_per_s:,.0f} of {one.recovered:,}"),
            ("recovery, stock Faust", f"{one.stock_records_per_s:,.0f} of {one.stock_recovered:,}"),
            ("ratio of the two", f"{one.records_per_s / one.stock_records_per_s:.1f}x"),
            ("CPU while nothing comes, share of one core", f"{one.idle_cpu:.1%}"),
            ("worker's memory, MiB", f"{one.rss_mib:.0f}"),
        ):
            table.add_row(name, value)
    return table


def fencing_line(one: Writing | Takeover) -> str:
    if isinstance(one, Takeover):
        old = "stalled amid a write" if one.stalled else "at rest"
        return f"{one.partitions:2} partitions {one.way:15} takes over in {one.ms:.1f} ms, the old owner {old}"
    latency = (
        f"{one.rate:5}/s p50 {one.ready.p50:.1f} p99 {one.ready.p99:.1f} ms;" if one.rate else "full micro-batches;"
    )
    return (
        f"{one.partitions:2} partitions {one.way:15} {latency} CPU {one.cpu_us:.0f} us/event; {one.events_per_s:,.0f} events/s; "
        f"unread {one.unread}; load {one.load:.1f}"
    )


def fencing_table(found: Fencing) -> Table:
    table = Table(
        title="Milliseconds from a micro-batch ready (due: its event) until a reader has its slates; x: over claims"
    )
    names = ("p50", "p99", "due p50", "due p99", "batch", "CPU us", "events/s")
    ratios = ("p50", "p99", "CPU", "events/s")
    for name in ("parts", "rate", "way", *names, *(f"{name} x" for name in ratios)):
        table.add_column(name, justify="left" if name == "way" else "right")
    for one in fencing.summarise(found.writings):
        times = (one.ready_p50, one.ready_p99, one.due_p50, one.due_p99)
        table.add_row(
            str(one.partitions), str(one.rate) if one.rate else "full", one.way,
            *(f"{value:.1f}" if one.rate else "" for value in times),
            f"{one.batch:.1f}", f"{one.cpu_us:.0f}", f"{one.events_per_s:,.0f}",
            *(f"{one.against[name]:.2f}" if name in one.against else "" for name in ratios),
        )  # fmt: skip
    return table


def takeover_table(found: Fencing) -> Table:
    held = (
        f"; open for want of a successor, timeout {found.timeout:g} s: held readers {found.held:.1f} s"
        if found.held
        else ""
    )
    table = Table(title=f"Milliseconds until every partition has a new owner, median{held}")
    for name in ("partitions", "way", "old owner at rest", "old owner stalled amid a write", "late writes refused"):
        table.add_column(name, justify="left" if name == "way" else "right")
    groups: dict[tuple[int, str], list[Takeover]] = {}
    for one in found.takeovers:
        groups.setdefault((one.partitions, one.way), []).append(one)
    for (partitions, way), takeovers in groups.items():
        cells = [statistics.median(one.ms for one in takeovers if one.stalled == stalled) for stalled in (False, True)]
        refused = sum(one.refused for one in takeovers)
        table.add_row(
            str(partitions), way, *(f"{cell:.1f}" for cell in cells), f"{refused} of {partitions * len(takeovers)}"
        )
    return table
