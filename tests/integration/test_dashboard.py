"""A real Prometheus scrapes a real worker under traffic; every query of the dashboard and of the rules is run on it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus import DEPLOY, RULES, Prometheus, binary
from tests.settings import with_own_topics
from tests.worker_process import Events, WorkerProcess, until

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "freshet.json").read_text())


def filled_in(expression: str) -> str:
    """A dashboard's expression with the variables as Grafana fills them in."""
    for name, value in {"$job": "freshet", "$instance": ".*", "$__rate_interval": "1m"}.items():
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
    """Prometheus with half a minute of a worker's life in it: clicks, ratings, comments and dead letters."""
    binary()
    settings = with_own_topics(kafka.bootstrap, bundles=bundles)
    events = Events(settings)
    events.send_items([*(f"item-{number}" for number in range(1, 51)), *(f"i{number}" for number in range(25))])
    events.producer.send(settings.items_topic, key=b"bad", value=b"{")
    worker = WorkerProcess(settings, tmp_path_factory.mktemp("dashboard")).start()
    served: Prometheus | None = None
    try:
        worker.wait_ready()
        target = {"w1": f"127.0.0.1:{worker.port()}"}
        served = Prometheus(tmp_path_factory.mktemp("prometheus"), target, RULES.read_text())
        until(served.ready, 30, "Prometheus is ready")
        until(lambda: served.query("freshet_ready == 1"), 30, "the worker is scraped")
        end = time.monotonic() + 12  # traffic over many scrapes, so that every rate has points
        while time.monotonic() < end:
            events.send(40, rate=200)
            events.producer.send(settings.sources[0], key=b"x", value=b"not json")
        events.producer.flush()
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
        worker.close()
        events.close()


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
def test_series_are_few_and_carry_no_user_or_item(prometheus: Prometheus) -> None:
    series = prometheus.ask("series", **{"match[]": '{job="freshet"}'})
    assert 100 < len(series) < 1000
    values = {value for one in series for value in one.values()}
    assert not [value for value in values if value.startswith(("user", "item-"))]
