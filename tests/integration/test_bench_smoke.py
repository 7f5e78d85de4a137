"""The benches run, small, on the real broker: every figure is there. How large they are is no matter of a test."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.publish import build, publish
from stream.core.fencing_log import NO_CLAIM, sift
from stream.settings import Settings
from tests.bench import api, cost, fencing, latency, memberships, recovery, report, verify
from tests.bench.failover import Plan
from tests.bench.traffic import NO_COMMENTS, WITH_COMMENTS, Traffic
from tests.bench.world import World, bundles
from tests.bundles import text_onnx, tiny_run
from tests.worker_process import read_all

pytestmark = [pytest.mark.integration, pytest.mark.long]


@pytest.fixture(scope="module")
def made(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("bench")
    publish(build(tiny_run(), text=text_onnx()), folder / "tiny")
    tiny, real = bundles("tiny", folder / "tiny"), bundles("real size", folder / "tiny")
    return World(kafka.bootstrap, folder, tiny, real)


def test_traffic_is_the_same_for_a_seed_and_no_comment_comes_twice() -> None:
    def values(seed: int) -> list[tuple[int, bytes]]:
        traffic = Traffic(WITH_COMMENTS, seed, 50, ["a", "b"])
        return [(m.behaviour, m.value) for m in (traffic.message(1.0) for _ in range(2000))]

    assert values(3) == values(3) != values(4)
    comments = [value for behaviour, value in values(3) if behaviour == 2]
    assert 60 < len(comments) == len(set(comments)) < 140
    assert not [b for b, _ in [(m.behaviour, m) for m in Traffic(NO_COMMENTS, 3, 5, ["a"]).take(500)] if b == 2]


def test_cost_of_freshet_and_of_stock_faust(made: World) -> None:
    plan = cost.Plan(events=300, users=40, rounds=1, mixes=(WITH_COMMENTS,))
    costs = cost.measure(made, plan)
    assert [one.case.split(",")[0] for one in costs] == ["stock Faust", "stock Faust", "freshet", "freshet"]
    for one in costs:
        assert one.cpu_us > 0
        assert one.events_per_s > 0
    summary = cost.summarise(costs)[-1]
    assert set(summary.against) == {"stock Faust, does nothing", "stock Faust, table + output"}
    assert report.cost_table(costs).row_count == 4


def test_latency_covers_every_event(made: World) -> None:
    plan = latency.Plan(rates=(100,), mixes=(WITH_COMMENTS,), seconds=3, skip=1, users=40, rounds=1)
    (one,) = latency.measure(made, plan)
    assert (one.events, one.uncovered) == (300, 0)
    assert 0 < one.all.p50 <= one.all.p99 < math.inf
    assert one.all.count == sum(found.count for found in one.behaviours.values())
    assert report.latency_table([one]).row_count == 1


def test_the_api_answers_what_it_is_asked(made: World) -> None:
    found = api.measure(made, api.Plan(seconds=1, connections=(2,), rounds=1, events=200, users=40, rate=50, probes=10))
    assert [one.told.wrong for one in found.throughput] == [0, 0]
    for one in found.throughput:
        assert 0 < one.told.p50 <= one.told.p99 <= one.told.most < math.inf
        assert one.cpu_us > 0
    assert (found.writes.older, found.writes.probes) == (0, 10)
    assert found.rss_mib > 10


def test_recovery_reads_every_state_back(made: World) -> None:
    (one,) = recovery.measure(made, recovery.Plan(events=600, users=40, parts=2, session_timeout=4, idle=1))
    assert (one.users, one.events) == (40, 600)
    assert one.changelog_records >= 40
    assert min(one.start_empty, one.start_with_data, one.start_wiped, one.start_after_kill) > 0
    assert one.state_mean > 4 * one.hidden
    assert one.stock_recovered == one.changelog_records <= one.recovered  # freshet's has claims too
    assert min(one.records_per_s, one.stock_records_per_s, one.stock_start_wiped) > 0
    assert report.recovery_table([one]).row_count == 14


@pytest.mark.slow  # what decision 0008 was taken by
def test_fencing_compares_claims_and_transactions(made: World) -> None:
    plan = fencing.Plan(fencing.FENCED, rates=(100,), partitions=(2,), seconds=1, events=1000, rounds=1, timeout=0)
    found = fencing.measure(made, plan)
    assert len(found.writings) == 4
    for one in found.writings:
        assert one.unread == 0
        assert one.cpu_us > 0
        assert one.rate == 0 or 0 < one.ready.p50 <= one.due.p50 <= one.due.most < math.inf
    assert len(found.takeovers) == 4
    assert report.fencing_table(found).row_count == 4
    assert report.takeover_table(found).row_count == 2


@pytest.mark.parametrize("stalled", [False, True])
@pytest.mark.parametrize("way", fencing.FENCED)
def test_both_fences_refuse_a_late_write(
    world: Callable[..., Settings], tmp_path: Path, way: str, stalled: bool
) -> None:
    settings = world(partitions=2)
    assert fencing.taken_over(settings, tmp_path, way, stalled).refused == 2
    slates = [record.value for record in read_all(settings, settings.recommendations_topic)]
    assert sorted(slates) == [b"1", b"1", b"3", b"3", b"4", b"4"]
    for partition in range(2):
        log = [one for one in read_all(settings, settings.changelog_topic) if one.partition == partition]
        states = dict(sift(log, NO_CLAIM).states)
        assert {user: state for user, state in states.items() if state is not None} == {b"ann": b"4"}


@pytest.mark.slow  # what decision 0010 was taken by
@pytest.mark.parametrize(
    ("membership", "way", "assignments"),
    [("own", "removed", 1), ("static", "killed", 1), ("static, leaves", "removed", 1)],
)
def test_the_memberships_are_what_they_are_called(made: World, membership: str, way: str, assignments: int) -> None:
    plan = Plan(users=40, session_timeout=60)  # a restart is shorter
    one = memberships.trial(made, plan, membership, way)
    assert (one.verified, one.exits, one.rebalances) == (0, [], assignments)
    assert 0 <= one.shortest <= one.longest < plan.session_timeout


def test_the_log_that_verify_is_measured_on(world: Callable[..., Settings]) -> None:
    settings = world(partitions=2)
    made = asyncio.run(verify.write(settings, 2000, users=50))
    found = verify.run_verify(settings, [])
    assert (found["exit_code"], found["applied"], found["states"]) == (0, 2000, made.states)
    assert found["wall_seconds"] > 0
    assert found["peak_mib"] > 10
