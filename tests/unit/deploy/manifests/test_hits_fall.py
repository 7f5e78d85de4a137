"""How often the alert FreshetHitsFall would be wrong, and how soon it would be right, by simulation of its formula."""

from __future__ import annotations

import re

import numpy as np
import pytest
import yaml

from tests.conftest import ROOT

HOURS = 10_000
SHARE = 0.1


@pytest.fixture(scope="module")
def limits() -> tuple[float, float, float]:
    """Standard errors, share of the last day's, choices: as the rule has them."""
    groups = yaml.safe_load((ROOT / "deploy/prometheus/rules/freshet.yml").read_text())["groups"]
    (rule,) = [one for group in groups for one in group["rules"] if one.get("alert") == "FreshetHitsFall"]
    found = re.search(r"> on \(job\) (\S+) \* sqrt.*> (\S+)\s+and on \(job\) \S+ > (\S+)", rule["expr"], re.DOTALL)
    assert found is not None
    errors, share, choices = map(float, found.groups())
    return errors, share, choices


def fires(limits: tuple[float, float, float], hour: float, choices: int, day: float = SHARE) -> float:
    """The share of hours in which the alert would fire; `hour` is the share of hits in each, `day` over the last day."""
    errors, least, enough = limits
    draw = np.random.default_rng(0)
    last_day = draw.binomial(24 * choices, day, HOURS) / (24 * choices)
    last_hour = draw.binomial(choices, hour, HOURS) / choices
    fall = last_day - last_hour
    alarm = (fall > errors * np.sqrt(last_day * (1 - last_day) / choices)) & (fall / last_day > least)
    return float(alarm.mean()) if choices > enough else 0.0


@pytest.mark.parametrize("choices", [201, 1000, 10_000])
def test_without_a_change_it_does_not_fire(limits: tuple[float, float, float], choices: int) -> None:
    assert fires(limits, SHARE, choices) == 0


def test_a_fall_to_half_is_seen_from_1000_choices_on(limits: tuple[float, float, float]) -> None:
    assert fires(limits, SHARE / 2, 1000) > 0.9


def test_a_few_choices_say_nothing(limits: tuple[float, float, float]) -> None:
    assert fires(limits, 0.0, 200) == 0
