"""Changing the bundle on a real broker: activation, rollback, refusal, takeover, and kills in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.verify import Report, Scope, run
from stream.core.bundle_log import CURRENT
from stream.settings import Settings
from tests.activations import ThreeBundles, activate, broken_bundle, bundle_log, damage, made_by, reports
from tests.gateway_process import GatewayProcess
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, all_committed, until

pytestmark = pytest.mark.integration

USERS = 12
MIB = 1 << 20


class Shop:
    """Three bundles, and events of some users."""

    def __init__(self, settings: Settings, folder: Path, bundles: ThreeBundles) -> None:
        self.settings = settings
        self.folder = folder
        self.bundles, self.a, self.b, self.third = bundles
        self.events = Events(settings, seed=3, users=USERS)
        self.events.send_items()

    def worker(self, name: str = "w1") -> WorkerProcess:
        return WorkerProcess(self.settings, self.folder, name, bundles=self.bundles)

    def live(self, worker: WorkerProcess, count: int = 60) -> None:
        """Some events, finished."""
        self.events.send(count)
        all_committed(self.settings, worker)

    def verify(self) -> Report:
        return run(self.settings, wait=30, scope=Scope())

    def is_whole(self) -> None:
        report = self.verify()
        assert (report.exit_code, report.violations) == (0, []), report.violations or report.notes


@pytest.fixture
def shop(world: Callable[..., Settings], tmp_path: Path, three_bundles: ThreeBundles) -> Iterator[Shop]:
    found = Shop(world(**QUICK), tmp_path, three_bundles)
    yield found
    found.events.close()


def swaps(worker: WorkerProcess) -> float:
    return worker.metric("freshet_bundle_swaps_total") if worker.runs() else -1


def said(worker: WorkerProcess, message: str, activation: int | None = None) -> bool:
    """Whether its log has a line that begins so, about this activation."""
    return worker.runs() and any(
        str(line.get("message", "")).startswith(message) and activation in (None, line.get("activation"))
        for line in worker.lines()
    )


def test_slates_are_made_by_the_bundle_that_the_topic_says(shop: Shop) -> None:
    worker = shop.worker().start()
    other = shop.worker("w2")
    try:
        worker.wait_ready()
        shop.live(worker)
        assert set(made_by(shop.settings, shop.a)) == {shop.a}
        assert bundle_log(shop.settings).offset == -1, "nothing is said as long as nothing was activated"
        assert worker.metric("freshet_bundle_activation") == -1

        stop = threading.Event()
        sending = threading.Thread(target=shop.events.send, args=(100_000, 50.0, stop.is_set))
        sending.start()
        try:
            number = activate(shop.settings, shop.b, "a better one")
            until(lambda: swaps(worker) == 1, 90, lambda: worker.awaited("switched"))
            time.sleep(1)
        finally:
            stop.set()
            sending.join()
        all_committed(shop.settings, worker)
        assert set(made_by(shop.settings, shop.a)) == {shop.a, shop.b}
        log = bundle_log(shop.settings)
        assert {one: (log.last(one).activation, log.last(one).bundle) for one in range(2)} == dict.fromkeys(  # type: ignore[union-attr]
            range(2), (number, shop.b)
        )
        assert [(one["activation"], one["bundle"], one["process"]) for one in reports(shop.settings, "loaded")] == [
            (number, shop.b, "worker")
        ]
        assert worker.metric("freshet_refolded_states_total") > 0, "the step model is another one"
        assert worker.metric("freshet_bundle_activation") == number
        assert worker.metric("freshet_bundle_info", bundle=shop.b) == 1
        assert worker.metric("freshet_bundle_info", bundle=shop.a) == 0
        assert worker.metric("freshet_bundle_load_seconds") > 0

        back = activate(shop.settings, shop.a, "back")
        until(lambda: swaps(worker) == 2, 90, lambda: worker.awaited("switched back"))
        shop.live(worker)
        made = made_by(shop.settings, shop.a)
        assert set(made) == {shop.a, shop.b}

        broken = activate(shop.settings, broken_bundle(shop.bundles, shop.b))
        until(lambda: worker.metric("freshet_bundle_refused") == 1, 60, lambda: worker.awaited("refused"))
        (refused,) = reports(shop.settings, "refused")
        assert (refused["activation"], refused["process"]) == (broken, "worker")
        assert "manifest.json: its sha256 is" in refused["reason"]
        shop.live(worker)
        assert made_by(shop.settings, shop.a)[shop.a] > made[shop.a], "the bundle in force goes on"
        assert worker.metric("freshet_bundle_activation") == back
        assert worker.metric("freshet_bundle_waiting_seconds") == 0

        number = activate(shop.settings, shop.b)
        until(lambda: swaps(worker) == 3, 90, lambda: worker.awaited("switched again"))
        assert worker.metric("freshet_bundle_refused") == 0
        shop.live(worker)
        switched = len(reports(shop.settings, "switched"))

        other.start().wait_ready()
        assert other.metric("freshet_bundle_activation") == number, "it starts with what is activated"
        worker.kill()
        until(lambda: said(other, "worker is ready"), 60, "the other takes over")
        shop.live(other)
        assert len(reports(shop.settings, "switched")) == switched, "the partitions have the bundle already"
        made_by(shop.settings, shop.a)
        shop.is_whole()
    finally:
        worker.close()
        other.close()


def test_a_worker_that_is_killed_on_the_way_goes_on_with_what_is_activated(shop: Shop) -> None:
    worker = shop.worker().start()
    try:
        worker.wait_ready()
        shop.live(worker)
        number = activate(shop.settings, shop.b)
        until(lambda: said(worker, "loading a bundle", number), 60, "it loads")
        worker.kill()  # while it loads
        shop.events.send(30)
        worker.start().wait_ready()
        assert worker.metric("freshet_bundle_activation") == number
        shop.live(worker)
        assert set(made_by(shop.settings, shop.a)) == {shop.a, shop.b}

        number = activate(shop.settings, shop.a)
        until(lambda: said(worker, "slates are made by another bundle", number), 90, "it has said so")
        worker.kill()  # after `switched`, before the first slate
        assert bundle_log(shop.settings).last(0).activation == number  # type: ignore[union-attr]
        worker.start().wait_ready()
        shop.live(worker)
        made_by(shop.settings, shop.a)

        damage(shop.bundles, shop.a)  # what is activated cannot be loaded any more
        assert worker.terminate() == 0
        worker.start().wait_ready()
        assert worker.metric("freshet_bundle_activation") < number, "it takes the one activated before"
        assert worker.metric("freshet_bundle_refused") == 1
        until(lambda: reports(shop.settings, "refused"), 30, "it says so")
        assert "score.onnx: its sha256 is" in reports(shop.settings, "refused")[0]["reason"]
        shop.live(worker)
        made_by(shop.settings, shop.a)
        assert bundle_log(shop.settings).last(0).bundle == shop.b  # type: ignore[union-attr]
        shop.is_whole()
    finally:
        worker.close()


def test_a_newer_activation_replaces_one_in_progress_and_comments_get_the_new_encoder(shop: Shop) -> None:
    third = shop.third
    worker = shop.worker().start()
    try:
        worker.wait_ready()
        shop.live(worker)
        activate(shop.settings, shop.b)
        until(lambda: said(worker, "loading a bundle"), 60, "it loads")
        number = activate(shop.settings, third)
        shop.events.weights, shop.events.words = (0, 0, 1), 60
        for _ in range(20):
            shop.events.send(5)
            time.sleep(0.2)
        until(lambda: worker.metric("freshet_bundle_activation") == number, 90, lambda: worker.awaited("switched"))
        all_committed(shop.settings, worker)
        made_by(shop.settings, shop.a)
        shop.live(worker)
        assert third in made_by(shop.settings, shop.a)
        shop.is_whole()
    finally:
        worker.close()


def test_a_bundle_that_is_no_longer_served_is_freed(shop: Shop) -> None:
    """Both have a text encoder of their own, tens of MiB of it."""
    third = shop.third
    worker = shop.worker().start()
    sizes: dict[str, list[float]] = {shop.a: [], third: []}
    try:
        worker.wait_ready()
        shop.live(worker)
        for done, bundle in enumerate((third, shop.a) * 3, 1):
            activate(shop.settings, bundle)
            until(lambda done=done: swaps(worker) == done, 90, lambda: worker.awaited("switched"))  # type: ignore[misc]
            shop.live(worker, 10)
            sizes[bundle].append(worker.metric("process_resident_memory_bytes") / MIB)
        for found in sizes.values():
            assert found[-1] < found[1] + 40, sizes
        made_by(shop.settings, shop.a)
    finally:
        worker.close()


def test_a_gateway_changes_for_itself_and_min_offset_holds(shop: Shop) -> None:
    worker = shop.worker().start()
    gateway = GatewayProcess(shop.settings, shop.folder, bundles=shop.bundles, serve_timeout=4.0).start()
    stop, wrong, seen = threading.Event(), [], set()

    def ask() -> None:
        """A click, and the slate with it, again and again: each answer contains the click, whichever bundle it is of."""
        while not stop.is_set():
            click = {"type": "click", "user": "user1", "item": "item-3", "time": int(time.time() * 1000)}
            written = gateway.ask("POST", "/v1/events", click)
            answer = gateway.slate("user1", f"min_offset={written.body['events'][0]['min_offset']}&explain=true")
            if (written.status, answer.status, answer.body.get("min_offset")) != (200, 200, "applied"):
                wrong.append((written, answer))
            seen.add(answer.body.get("bundle"))

    try:
        worker.wait_ready()
        gateway.wait_ready()
        shop.live(worker)
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            number = activate(shop.settings, shop.b)
            for one, metric in ((worker, "freshet_bundle_activation"), (gateway, "freshet_api_bundle_activation")):
                until(lambda one=one, metric=metric: one.metric(metric) == number, 120, one.awaited("switched"))  # type: ignore[misc]
            time.sleep(1)
        finally:
            stop.set()
            asking.join()
        assert (wrong, seen) == ([], {shop.a, shop.b})
        assert gateway.slate("user1").body["bundle"] == shop.b
        assert gateway.ask("GET", "/v1/catalogue").body["bundle"] == shop.b
        assert gateway.metric("freshet_api_bundle_info", bundle=shop.b) == 1
        assert {one["process"] for one in reports(shop.settings, "loaded")} == {"worker", "gateway"}
        of_each = [CURRENT, number]  # what was served before, and what is served now
        assert [one["activation"] for one in reports(shop.settings, "switched")] == of_each * 2, (
            "a gateway makes no slates"
        )
        activate(shop.settings, "0" * 64)
        until(lambda: gateway.metric("freshet_api_bundle_refused") == 1, 60, gateway.awaited("refused"))
        assert gateway.slate("user2").body["bundle"] == shop.b
        made_by(shop.settings, shop.a)
    finally:
        gateway.close()
        worker.close()
