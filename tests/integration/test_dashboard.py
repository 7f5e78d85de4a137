"""A real Prometheus scrapes a real worker and a gateway under traffic; all queries of the dashboard and the rules run on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import start_http_server

from deploy.clients.murmur2 import murmur2
from deploy.learning.learn import PUBLISHED, Outcome
from deploy.learning.metrics import LearnMetrics
from stream.settings import Settings
from tests.gateway_process import GatewayProcess
from tests.prometheus import DEPLOY, RULES, Prometheus, binary
from tests.settings import with_own_topics
from tests.tally_process import TallyProcess
from tests.worker_process import Events, WorkerProcess, until

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "freshet.json").read_text())


def filled_in(expression: str) -> str:
    """A dashboard's expression with the variables as Grafana fills them in."""
    variables = {
        "$gateway_job": "freshet-gateway", "$gateway": ".*", "$tally_job": "freshet-tally",
        "$learn_job": "freshet-learn", "$job": "freshet", "$instance": ".*",
    }  # fmt: skip
    for name, value in (variables | {"$__rate_interval": "1m"}).items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


QUERIES = [
    pytest.param(filled_in(target["expr"]), panel, id=f"{panel['title']}-{target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


@pytest.fixture(scope="module")
def prometheus(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with half a minute of a worker's, a gateway's and a tally's life in it: clicks, ratings, comments, dead
    letters; slates, refused events, waits, and requests over the rate. And what a `freshet learn` says after a turn."""
    binary()
    settings = with_own_topics(kafka.bootstrap, bundles=bundles)
    events = Events(settings)
    events.send_items([*(f"item-{number}" for number in range(1, 51)), *(f"i{number}" for number in range(25))])
    for topic in (settings.items_topic, settings.rules_topic, settings.tables_topic):
        events.producer.send(topic, key=b"bad", value=b"{")
    folder = tmp_path_factory.mktemp("dashboard")
    worker = WorkerProcess(settings, folder).start()
    gateway = GatewayProcess(settings, folder, bundles=bundles, serve_rate=20, serve_wait=0.05).start()
    tally = TallyProcess(settings, folder, bundles=bundles, tally_epoch_seconds=2.0).start()
    learning = LearnMetrics(3600)
    learning.ended(Outcome(PUBLISHED, "a" * 64, "run", "head", seconds=60.0))
    answers, _ = start_http_server(0, "127.0.0.1", learning.registry)
    served: Prometheus | None = None
    try:
        worker.wait_ready()
        gateway.wait_ready()
        tally.wait_ready()
        target, other = {"w1": f"127.0.0.1:{worker.port()}"}, {"g1": f"127.0.0.1:{gateway.port()}"}
        third = {"t1": f"127.0.0.1:{tally.port()}"}
        fourth = {"l1": f"127.0.0.1:{answers.server_port}"}
        served = Prometheus(tmp_path_factory.mktemp("prometheus"), target, RULES.read_text(), other, third, fourth)
        until(served.ready, 30, "Prometheus is ready")
        until(lambda: served.query("freshet_ready == 1"), 30, "the worker is scraped")
        until(lambda: served.query("freshet_api_ready == 1"), 30, "the gateway is scraped")
        until(lambda: served.query("freshet_tally_ready == 1"), 30, "the tally is scraped")
        until(lambda: served.query("freshet_learn_failed == 0"), 30, "what learns is scraped")
        end = time.monotonic() + 12  # traffic over many scrapes, so that every rate has points
        while time.monotonic() < end:
            events.send(40, rate=200)
            events.producer.send(settings.sources[0], key=b"x", value=b"not json")
            asked(gateway, settings)
        events.producer.flush()
        until(lambda: served.query("freshet_tables_epoch >= 1"), 30, "the worker has an epoch")
        until(lambda: served.query("freshet_api_tables_epoch >= 1"), 30, "the gateway has an epoch")
        sent = events.sent
        worker.wait_applied(sent, 60)
        until(
            lambda: (
                sum(float(one["value"][1]) for one in served.query('freshet_events_total{outcome="applied"}')) == sent
            ),
            30,
            "the last scrape has seen them",
        )
        until(lambda: served.query("job:freshet_slow_events:ratio_rate3d"), 30, "the recorded series are there")
        yield served
    finally:
        if served is not None:
            served.close()
        answers.shutdown()
        answers.server_close()
        tally.close()
        gateway.close()
        worker.close()
        events.close()


def asked(gateway: GatewayProcess, settings: Settings) -> None:
    """What an API is asked: slates, an event that is not acceptable, one that is not there in time; too often at the end."""
    gateway.ask("POST", "/v1/events", {"type": "click"})
    gateway.slate("user1", f"min_offset={settings.sources[0]}/{murmur2(b'user1') % settings.partitions}:1000000")
    statuses = [gateway.slate(f"user{number}").status for number in range(30)]
    assert {200, 429} >= set(statuses)


@pytest.mark.integration
@pytest.mark.parametrize(("expression", "panel"), QUERIES)
def test_panel_shows_something(prometheus: Prometheus, expression: str, panel: dict[str, Any]) -> None:
    if panel["targets"][0]["instant"]:
        values = [series["value"][1] for series in prometheus.query(expression)]
    else:
        now = time.time()
        data = prometheus.ask("query_range", query=expression, start=f"{now - 30}", end=f"{now}", step="1")
        values = [value for series in data["result"] for _, value in series["values"]]
    assert values, f"no series: {expression}"
    assert any(value != "NaN" for value in values), f"only NaN: {expression}"


@pytest.mark.integration
@pytest.mark.parametrize("annotation", DASHBOARD["annotations"]["list"], ids=lambda one: str(one["name"]))
def test_annotation_is_a_query(prometheus: Prometheus, annotation: dict[str, Any]) -> None:
    prometheus.query(filled_in(annotation["expr"]))


@pytest.mark.integration
@pytest.mark.parametrize("variable", [one for one in DASHBOARD["templating"]["list"] if one["type"] == "query"],
                         ids=lambda one: str(one["name"]))  # fmt: skip
def test_variable_has_values(prometheus: Prometheus, variable: dict[str, Any]) -> None:
    selector, _, label = variable["definition"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
    assert prometheus.ask(f"label/{label}/values", **{"match[]": filled_in(selector)})


@pytest.mark.integration
def test_rules_are_evaluated_and_a_healthy_worker_pages_nobody(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert len(rules) > 15
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    firing = prometheus.firing()
    assert firing - prometheus.late(firing) == set()


@pytest.mark.integration
@pytest.mark.parametrize("job", ["freshet", "freshet-gateway"])
def test_series_are_few_and_carry_no_user_or_item(prometheus: Prometheus, job: str) -> None:
    series = prometheus.ask("series", **{"match[]": f'{{job="{job}"}}'})
    assert 100 < len(series) < 1000
    values = {value for one in series for value in one.values()}
    assert not [value for value in values if value.startswith(("user", "item-"))]
