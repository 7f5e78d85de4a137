"""The faster rules are the rules: only lengths of time differ, all of them by the same factor."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.prometheus import RULES, faster

TIMES = re.compile(r"\[(\w+)\]|(?:time\(\) - \w+|age:seconds) [<>] ([\d.]+)|, 4 \* ([\d.]+)")
THRESHOLDS = {"0", "1", "3", "5", "6", "10", "14.4", "60", "100", "0.01", "0.05", "1.0", "0.2", "4", "200"}
"""Every number of the rules that is no length of time. 10 and 60: seconds that a worker measures, no length of a rule"""
LABELS = re.compile(r'(?:route|status)[=!]~"[^"]*"')


def rules(text: str) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def parted(rule: dict[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """A rule without its times, and its times in seconds."""
    times = [next(filter(None, found.groups())) for found in TIMES.finditer(rule["expr"])]
    times += [rule["for"]] if "for" in rule else []
    return {**rule, "expr": TIMES.sub("T", rule["expr"]), "for": "for" in rule}, [seconds(time) for time in times]


def seconds(time: str) -> float:
    """Of 5m or 300."""
    found = re.fullmatch(r"([\d.]+)(\w*)", time)
    assert found
    return float(found[1]) * {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def test_divided_by_one_nothing_changes() -> None:
    assert yaml.safe_load(faster(RULES.read_text(), 1)) == yaml.safe_load(RULES.read_text())


@pytest.mark.parametrize("factor", [10, 60, 120])
def test_only_times_change_and_every_time_does(factor: int) -> None:
    before, after = rules(RULES.read_text()), rules(faster(RULES.read_text(), factor))
    assert len(before) == len(after) > 20
    for old, new in zip(before, after, strict=True):
        (kept, long), (now, short) = parted(old), parted(new)
        assert now == kept
        assert [factor * time for time in short] == pytest.approx(long)
        without_names = re.sub(r"[a-z]\w*:[\w:]+", "", LABELS.sub("", kept["expr"]))
        assert set(re.findall(r"(?<![\w.])[\d.]+(?![\w.])", without_names)) <= THRESHOLDS, (
            "a new number: time or threshold?"
        )


def test_examples() -> None:
    text = faster(RULES.read_text(), 60)
    found = {rule.get("alert") or rule["record"]: rule for rule in rules(text)}
    assert found["FreshetStalled"]["expr"] == (
        "sum by (job, instance) (freshet_lag_records) > 0 "
        "and on (job, instance) time() - freshet_last_commit_timestamp_seconds > 1"
    )
    assert found["FreshetStalled"]["for"] == "4s"
    assert found["FreshetDiskFull"]["expr"] == "predict_linear(freshet_data_disk_free_bytes[1m], 4 * 60) < 0"
    assert found["FreshetDiskFull"]["for"] == "15s"
    assert found["FreshetLag"]["expr"] == "max by (job, instance, topic) (freshet_lag_seconds) > 60"
    assert found["FreshetRebalances"]["expr"] == "sum by (job, instance) (increase(freshet_rebalances_total[15s])) > 5"
    assert "[72m]" in found["job:freshet_slow_events:ratio_rate3d"]["expr"]
    assert rules(faster(RULES.read_text(), 120))[0]["expr"].count("[2500ms]") == 2


def test_a_time_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="whole milliseconds"):
        faster(RULES.read_text(), 7)
