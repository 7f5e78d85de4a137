"""The deploy files against what they speak about: promtool, the worker's metrics, its settings, the lock files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.learning.metrics import LearnMetrics
from stream.core.rules import NO_RULES
from stream.gateway.metrics import GatewayMetrics
from stream.observability.health import Health
from stream.observability.metrics import BatchFigures, Metrics
from stream.settings import Settings
from stream.tally.metrics import TallyMetrics
from tests.chaos.alerts import SCENARIOS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "freshet.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "freshet.json"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def promtool() -> str:
    found = os.environ.get("PROMTOOL") or shutil.which("promtool", path=str(ROOT / ".tools" / "bin"))
    if not found:
        pytest.skip("promtool is not there: make tools")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """All sample names that a worker, a gateway, a tally or a `freshet learn` can expose."""
    metrics = Metrics(("clicks", "ratings", "comments"))
    Health(metrics)
    figures = BatchFigures()
    figures.dead_letter(0, "clicks", "decode", "not_utf8")
    metrics.observe_batch(figures)
    metrics.reject_item("missing_field")
    metrics.refuse_rule("contradiction")
    metrics.refuse_table("incomplete")
    metrics.use_bundle("b", "m")
    metrics.use_provider("cpu", "cpu")
    metrics.use_version("1")
    registries = (metrics.registry, gateway_metrics().registry, tally_metrics().registry, LearnMetrics().registry)
    families = (family for registry in registries for family in registry.collect())
    return {sample.name for family in families for sample in family.samples}


def gateway_metrics() -> GatewayMetrics:
    """All metrics of a gateway, each with a series."""
    gateway = GatewayMetrics(["/v1/popular"])
    gateway.answered("/v1/popular", 200, 0.1)
    gateway.sent(1, ["missing_field"])
    gateway.replica({0: 0}, {0: 0.0})
    gateway.bundle_info.labels("b", "m")
    gateway.build_info.labels("1")
    gateway.catalogue_items.labels("live")
    gateway.observe_rules(NO_RULES)
    gateway.refuse_rule("contradiction")
    gateway.refuse_table("incomplete")
    return gateway


def tally_metrics() -> TallyMetrics:
    """All metrics of a tally, each with a series."""
    tally = TallyMetrics(("clicks",))
    tally.refuse("not_utf8")
    tally.build_info.labels("1")
    return tally


def expressions(dashboard: dict[str, Any]) -> list[str]:
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return panels + [annotation["expr"] for annotation in dashboard["annotations"]["list"]]


def test_prometheus_configuration(promtool: str) -> None:
    run(promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


def test_rules(promtool: str) -> None:
    run(promtool, "check", "rules", str(RULES))


def test_every_alert_is_fired_by_its_fault_and_none_by_a_healthy_worker(promtool: str) -> None:
    run(promtool, "test", "rules", str(Path(__file__).parent / "alerts.yml"))


def test_rules_have_a_test_and_alerts_a_severity_a_fault_and_an_entry_in_the_runbook() -> None:
    tests = (Path(__file__).parent / "alerts.yml").read_text()
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        assert re.search(rf"\b{rule.get('alert') or rule['record']}\b", tests)
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    for name, alert in alerts.items():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    entries = re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", runbook, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in entries] == list(alerts)
    faults = {name: {alert for alert, _ in scenario.fires} for name, scenario in SCENARIOS.items()}
    assert set().union(*faults.values()) == alerts.keys()
    for name, entry in entries:
        assert entry.startswith(f"**{alerts[name]['labels']['severity']}.** ")
        assert "\nLook at: " in entry
        assert "\nDo: " in entry
        test = entry[entry.index("\nTest: ") :]
        assert set(re.findall(r"\*([a-z ]+)\*", test)) == {
            scenario for scenario, fired in faults.items() if name in fired
        }


def test_rules_and_dashboard_use_metrics_that_exist(exposed: set[str]) -> None:
    rules = yaml.safe_load(RULES.read_text())
    recorded = {rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule}
    used = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    used += expressions(json.loads(DASHBOARD.read_text()))
    names = {name for expr in used for name in re.findall(r"[a-z][a-z_:0-9]*(?=[{\[ )]|$)", expr)}
    ours = {name for name in names if "freshet_" in name or name.startswith("process_")}
    assert ours - exposed - recorded - {"job:freshet_slow_events"} == set()
    assert len(ours) > 30


def test_every_metric_is_on_the_dashboard_or_in_a_rule(exposed: set[str]) -> None:
    used = RULES.read_text() + DASHBOARD.read_text()
    unused = {
        name for name in exposed if name.startswith("freshet_") and not name.endswith(("_sum", "_count", "_bucket"))
    }
    assert {name for name in unused if name not in used} == set()


def test_metrics_page_lists_exactly_the_metrics_with_type_and_labels() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(freshet_\w+)` \| (\w+) \| ([\w, ]*)\|", page, re.MULTILINE)
    documented = {name: (kind, tuple(labels.replace(",", " ").split())) for name, kind, labels in rows}
    assert len(rows) == len(documented)
    metrics = Metrics()
    figures = BatchFigures()
    figures.dead_letter(0, "clicks", "decode", "not_utf8")
    metrics.observe_batch(figures)
    metrics.reject_item("missing_field")
    metrics.refuse_rule("contradiction")
    metrics.refuse_table("incomplete")
    metrics.observe_lag({"clicks": (0, 0.0)})
    metrics.observe_undecided({"clicks": 0})
    metrics.use_bundle("b", "m")
    metrics.use_provider("cpu", "cpu")
    metrics.use_version("1")
    found = {}
    registries = (metrics.registry, gateway_metrics().registry, tally_metrics().registry, LearnMetrics().registry)
    for family in (one for registry in registries for one in registry.collect()):
        if family.name.startswith("freshet_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, tuple(label for label in family.samples[0].labels if label != "le"))
    assert documented == found


def test_dashboard_is_well_formed() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"]["unit"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert len(rows) == 11
    assert all(expr.count("(") == expr.count(")") for expr in expressions(dashboard))


def test_compose_publishes_on_loopback_and_gives_no_rights() -> None:
    for name, service in COMPOSE["services"].items():
        assert not service.get("privileged"), name
        assert "network_mode" not in service
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        image, _, tag = service["image"].partition(":")
        assert tag, name
        assert tag != "latest" or image == "freshet", name
    for name in ("worker", "topics", "gateway", "tally"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_compose_files_and_volumes_exist() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), (name, source)
            elif not source.startswith(("/", "$")):
                assert source in COMPOSE["volumes"], (name, source)
    build = COMPOSE["services"]["worker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    provisioned = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/freshet.yaml").read_text())
    folder = provisioned["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{folder}:ro" in COMPOSE["services"]["grafana"]["volumes"]


def test_settings_named_in_deploy_files_exist() -> None:
    named = set()
    for file in ("Dockerfile", "compose.yaml"):
        named |= set(re.findall(r"FRESHET_([A-Z_]+)", (DEPLOY / file).read_text()))
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_prometheus_scrapes_the_ports_that_the_image_listens_on() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    found = {one["job_name"]: one["dns_sd_configs"][0] for one in config["scrape_configs"]}
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    exposed = re.findall(r"^EXPOSE (.*)$", dockerfile, re.MULTILINE)[-1].split()
    for job, service, setting in (
        ("freshet", "worker", "WEB_PORT"),
        ("freshet-gateway", "gateway", "SERVE_PORT"),
        ("freshet-tally", "tally", "WEB_PORT"),
    ):
        assert found[job]["names"] == [service]
        assert service in COMPOSE["services"]
        port = found[job]["port"]
        assert f"FRESHET_{setting}={port}" in dockerfile
        assert str(port) in exposed


def test_compose_runs_the_gateway_with_tokens_and_asks_it_for_its_health() -> None:
    gateway = COMPOSE["services"]["gateway"]
    assert gateway["command"] == ["serve"]
    (name,) = gateway["secrets"]
    assert gateway["environment"]["FRESHET_SERVE_TOKENS"] == f"/run/secrets/{name}"
    assert COMPOSE["secrets"][name]["file"]
    assert "http://127.0.0.1:8080/healthz" in gateway["healthcheck"]["test"][-1]
    assert int(gateway["stop_grace_period"].removesuffix("s")) > 30
    assert gateway["profiles"]  # without a file of tokens all else starts


def test_the_image_is_built_from_everything_that_links_in_the_packages_point_to() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = {ROOT / name for names in copied for name in names.split()}
    allowed = {ROOT / line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    links = [
        path
        for room in ("stream", "models", "export", "deploy")
        for path in (ROOT / room).rglob("*")
        if path.is_symlink()
    ]
    assert DEPLOY / "schemas" in links
    for target in (path.resolve() for path in links):
        assert any(target.is_relative_to(source) for source in sources), target
        assert any(target.is_relative_to(source) for source in allowed), target


def test_image_runs_without_root_and_is_watched() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    final = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    users = [line.split()[1] for line in final if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("root", "0")
    assert any(line.startswith("HEALTHCHECK") for line in final)
    assert not any(":latest" in line or re.fullmatch(r"FROM \w+( AS \w+)?", line) for line in lines)


def pins(lock: Path) -> dict[str, set[str]]:
    """name -> versions."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def test_serving_lock_is_the_part_of_the_lock_that_serving_needs() -> None:
    serving, everything = pins(DEPLOY / "serving.lock"), pins(ROOT / "requirements.lock")
    assert len(serving) > 20
    for name, versions in serving.items():
        assert versions <= everything[name], name
    heavy = {"torch", "transformers", "onnx", "onnxscript", "polars", "triton", "matplotlib", "pytest"}
    assert not heavy & set(serving)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["serve"]
    wanted = {found[0] for one in declared if (found := re.match(r"[A-Za-z0-9._-]+", one))}
    assert wanted - set(serving) == set(), "run the uv command in docs/deploy.md again"
    blocks = (DEPLOY / "serving.lock").read_text().split("\n")
    assert not [line for line in blocks if line.startswith(("--index", "--find", "-i "))]
    assert (DEPLOY / "serving.lock").read_text().count("--hash=sha256:") > len(serving)
