"""A real Prometheus for the tests, and the alert rules with every length of time divided by one number.

text = faster(RULES.read_text(), 60)           # 5m -> 5s, `> 300` seconds of an age -> `> 5`; ratios and counts as they are
with Prometheus(folder, {"w1": "127.0.0.1:9464"}, text) as served:
    until(lambda: ("FreshetLag", "w1") in served.firing(), 60, "the alert fires")
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.worker_process import until

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules" / "freshet.yml"

MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
RANGE = re.compile(r"(?<=\[)(\d+)(ms|s|m|h|d)(?=\])")
SECONDS = re.compile(r"(time\(\) - \w+ [<>] |\w+:freshet_age:seconds [<>] |predict_linear\([^,]+, 4 \* )(\d+)")
"""Numbers of seconds: what an age is compared with, and one hour of predict_linear's four."""

Firing = set[tuple[str, str]]
"""(alert, instance); instance is "" where the alert is about all of them."""


def faster(rules: str, factor: int) -> str:
    """The rules file with every range, `for` and number of seconds divided by `factor`; nothing else is changed.

    Raises ValueError for a time that does not divide into whole milliseconds.
    """
    found = yaml.safe_load(rules)
    for group in found["groups"]:
        for rule in group["rules"]:
            expr = RANGE.sub(lambda time: _shorter(time.group(), factor), rule["expr"])
            rule["expr"] = SECONDS.sub(lambda seconds: seconds[1] + _number(Fraction(int(seconds[2]), factor)), expr)
            if "for" in rule:
                rule["for"] = _shorter(rule["for"], factor)
    return str(yaml.safe_dump(found, sort_keys=False, width=10_000))


def _shorter(time: str, factor: int) -> str:
    read = re.fullmatch(r"(\d+)(\w+)", time)
    assert read, f"no length of time: {time}"
    number, unit = read.groups()
    left, rest = divmod(int(number) * MILLISECONDS[unit], factor)
    if rest:
        raise ValueError(f"{time} does not divide by {factor} into whole milliseconds")
    unit = next(unit for unit in reversed(MILLISECONDS) if left % MILLISECONDS[unit] == 0)
    return f"{left // MILLISECONDS[unit]}{unit}"


def _number(seconds: Fraction) -> str:
    return str(seconds.numerator) if seconds.denominator == 1 else repr(float(seconds))


def binary() -> str:
    """The Prometheus to run: that of PROMETHEUS, else of .tools. Skips the test where there is none."""
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus", path=str(ROOT / ".tools" / "bin"))
    if not found:
        pytest.skip("prometheus is not there: make tools")
    return found


class Prometheus:
    """A Prometheus process on a free loopback port, with rules and a scrape interval of half a second.

    targets: instance -> host:port of workers, gateways: the same of gateways, tallies: of tallies, learners: of those that
    `freshet learn` runs in; changed by `watch`.
    """

    def __init__(
        self, folder: Path, targets: Mapping[str, str], rules: str, gateways: Mapping[str, str] | None = None,
        tallies: Mapping[str, str] | None = None, learners: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._folder = folder
        self.watch(targets, gateways, tallies, learners)
        (folder / "rules.yml").write_text(rules)
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(folder / "rules.yml")]
        for job in config["scrape_configs"]:
            del job["dns_sd_configs"]
            job["file_sd_configs"] = [{"files": [str(self._targets(job["job_name"]))], "refresh_interval": "1s"}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                binary(),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def __enter__(self) -> Prometheus:
        try:
            until(self.ready, 30, "Prometheus is ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def watch(
        self,
        targets: Mapping[str, str],
        gateways: Mapping[str, str] | None = None,
        tallies: Mapping[str, str] | None = None,
        learners: Mapping[str, str] | None = None,
    ) -> None:
        """Scrape these from now on, and no others."""
        jobs = {
            "freshet": targets, "freshet-gateway": gateways or {}, "freshet-tally": tallies or {},
            "freshet-learn": learners or {},
        }  # fmt: skip
        for job, instances in jobs.items():
            found = [{"targets": [address], "labels": {"instance": name}} for name, address in instances.items()]
            partial = self._targets(job).with_suffix(".partial")
            partial.write_text(json.dumps(found))
            partial.replace(self._targets(job))

    def _targets(self, job: str) -> Path:
        return self._folder / f"{job}.json"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an API call. Raises AssertionError with Prometheus' own message where it refuses."""
        call = f"{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{call}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Instant vector: the series of the expression now."""
        return list(self.ask("query", query=expression)["result"])

    def query_range(self, expression: str, start: float, end: float, step: float = 0.5) -> list[dict[str, Any]]:
        """Series of the expression between two Unix times, a value every `step` seconds."""
        return list(self.ask("query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}")["result"])

    def firing(self) -> Firing:
        """The alerts that fire now."""
        return self._alerts(self.query('ALERTS{alertstate="firing"}'))

    def silent(self) -> bool:
        """No alert fires now."""
        return not self.firing()

    def late(self, alerts: Firing) -> Firing:
        """Those of `alerts` that say that the objective is missed, where it is: by the workers' own counters over 1 % of the
        events took over 1 s, as they do on a machine that is busy enough. Then it is right that they fire."""
        in_time = 'sum by (job) (freshet_event_to_slate_seconds_bucket{le="1.0"})'
        missed = self.query(f"sum by (job) (freshet_event_to_slate_seconds_count) * 0.99 > {in_time}")
        return {one for one in alerts if one[0].startswith("FreshetBudgetBurns")} if missed else set()

    def fired(self, start: float, end: float) -> Firing:
        """The alerts that fired at any time between two Unix times."""
        return self._alerts(self.query_range('ALERTS{alertstate="firing"}', start, end))

    @staticmethod
    def _alerts(series: list[dict[str, Any]]) -> Firing:
        return {(one["metric"]["alertname"], one["metric"].get("instance", "")) for one in series}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its state, as the API tells it."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()
