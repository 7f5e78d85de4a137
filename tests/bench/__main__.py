"""The benches: python -m tests.bench [one of those below, or all] [--json FILE]


cost       CPU per event and events/s of a worker, beside stock Faust agents, in turn
latency    from an event to its slate at steady rates
comments   clicks' latency with and without comments, side by side, in turn
recovery   bytes of state per user, time from start to ready, recovery from the changelog beside stock Faust's
fencing    what it costs to refuse a stalled worker's late write: claims beside transactions, in turn
api        requests/s of the HTTP API, and read-your-writes with the largest of --rates
diversity  what re-ranking a slate costs per user, without Kafka (not among all)
explain    what an explained answer costs beside a plain one, without Kafka (not among all)
texts      what the text term adds to scoring, without Kafka (not among all)
tables     what tables as inputs of the score graph cost beside tables inside it, without Kafka (not among all)
reissue    how long until no standing slate of --users shows a blocked item, alone and with --rates clicks/s (not among all)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.bench import api, cost, diversity, explain, fencing, latency, recovery, reissue, report, tables, texts
from tests.bench.machine import describe
from tests.bench.traffic import NO_COMMENTS, WITH_COMMENTS
from tests.bench.world import World, world

BENCHES = ("cost", "latency", "comments", "recovery", "fencing", "api")


def main() -> None:
    options = _options()
    console = Console(stderr=options.json == Path("-"), width=None if sys.stdout.isatty() else 130)
    found: dict[str, Any] = {"machine": describe()}
    if options.bench == "diversity":
        plan = diversity.Plan(rounds=10 * options.rounds, seed=options.seed)
        found["diversity"] = diversity.as_json(plan, diversity.measure(plan, console.print))
        _write(found, options, console)
        return
    if options.bench == "explain":
        explaining = explain.Plan(options.items, rounds=10 * options.rounds, seed=options.seed)
        found["explain"] = explain.as_json(explaining, explain.measure(explaining, console.print))
        _write(found, options, console)
        return
    if options.bench == "texts":
        scoring = texts.Plan(options.items, rounds=10 * options.rounds, seed=options.seed)
        found["texts"] = texts.as_json(scoring, texts.measure(scoring, console.print))
        _write(found, options, console)
        return
    if options.bench == "tables":
        taking = tables.Plan(options.items, rounds=10 * options.rounds, seed=options.seed)
        found["tables"] = tables.as_json(taking, tables.measure(taking, console.print))
        _write(found, options, console)
        return
    with world(options.bundles, options.items) as made:
        for name in BENCHES if options.bench == "all" else (options.bench,):
            found[name] = _run(name, made, options, console)
    _write(found, options, console)


def _write(found: dict[str, Any], options: argparse.Namespace, console: Console) -> None:
    found["machine"]["load_average_at_end"] = describe()["load_average"]
    text = json.dumps(found, indent=1)
    if options.json == Path("-"):
        print(text)
    elif options.json:
        options.json.write_text(text + "\n")
    else:
        console.print_json(data=found["machine"])


def _run(name: str, made: World, options: argparse.Namespace, console: Console) -> dict[str, object]:
    console.rule(name)
    if name == "cost":
        plan = cost.Plan(options.events, options.users, options.rounds, seed=options.seed)
        costs = cost.measure(made, plan, lambda one: console.print(report.cost_line(one)))
        console.print(report.cost_table(costs))
        return cost.as_json(costs)
    if name == "recovery":
        states = recovery.measure(made, recovery.Plan(options.events * 20, options.users, seed=options.seed))
        console.print(report.recovery_table(states))
        return recovery.as_json(states)
    if name == "api":
        asked = api.Plan(
            options.seconds / 2, rounds=options.rounds, events=options.events, users=options.users, rate=max(options.rates),
            probes=options.probes, seed=options.seed, gorse=options.gorse,
        )  # fmt: skip
        return api.as_json(api.measure(made, asked, console.print))
    if name == "reissue":
        given = [reissue.Plan(options.users, rate) for rate in (0, *options.rates)]
        return {"plans": [reissue.as_json(one, reissue.measure(made, one, console.print)) for one in given]}
    if name == "fencing":
        writes = fencing.Plan(
            rates=tuple(options.rates),
            seconds=options.seconds / 4,
            events=options.events,
            rounds=options.rounds,
            seed=options.seed,
        )
        found = fencing.measure(made, writes, lambda one: console.print(report.fencing_line(one)))
        console.print(report.fencing_table(found))
        console.print(report.takeover_table(found))
        return fencing.as_json(found)
    rates = tuple(options.rates) if name == "latency" else (max(options.rates),)
    mixes = (NO_COMMENTS,) if name == "latency" else (NO_COMMENTS, WITH_COMMENTS)
    seconds = options.seconds
    times = latency.Plan(rates, mixes, seconds, min(5.0, seconds / 4), options.users, options.rounds, options.seed)
    latencies = latency.measure(made, times, lambda one: console.print(report.latency_line(one)))
    console.print(report.latency_table(latencies))
    return latency.as_json(latencies)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = (*BENCHES, "diversity", "explain", "texts", "tables", "reissue", "all")
    parser.add_argument("bench", nargs="?", default="all", choices=choices)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there; -: standard output")
    parser.add_argument(
        "--bundles", type=Path, help="serve this bundles folder instead of an untrained one of real size"
    )
    parser.add_argument("--items", type=int, default=10_000, help="catalogue of the untrained bundle")
    parser.add_argument(
        "--events", type=int, default=20_000, help="of one measurement of cost; recovery: twenty times that"
    )
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions")
    parser.add_argument(
        "--rates", type=int, nargs="*", default=[200, 1000], help="events a second; comments: the largest"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of one measurement of latency; fencing: a quarter of that"
    )
    parser.add_argument("--probes", type=int, default=500, help="api: events that are written and read at once")
    parser.add_argument("--gorse", type=Path, help="api: Gorse's program, asked in turn (tests.bench.gorse builds it)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
