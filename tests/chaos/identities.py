"""Fault 39: ids that spell the places of other events, and headers that name them: worker and check must read them alike."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from stream.settings import Settings
from tests.chaos.input import Sender, all_dead_letters
from tests.chaos.trial import Trial
from tests.poison import NOW, Poison

CLICKS = "clicks"
EACH = 5  # places that each user spells: of four good events of his and a broken one


def places(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, users: int, workers: int, kill: bool, rate: float
) -> None:
    """Each user's clicks give the places of his own earlier records as ids and in the header `original-record`: of
    events that were
    applied, and of a dead letter. Only an id that comes again is a duplicate."""
    draw = random.Random(seed)
    with (
        Trial(39, "ids that are places", seed, settings, bundles, folder, workers=workers, rate=rate) as trial,
        Sender(trial) as sender,
    ):
        for number in range(users):
            user = f"spells-{seed}-{number}"
            for place in _placed(sender, user, draw):
                _spell(sender, user, place)
            if kill and number == users // 2:
                sender.flush()
                trial.kill(trial.one())
            trial.pause(0, 0.1)
        sender.flush()
        all_dead_letters(trial, sender)
        trial.note = (
            f"{users} users gave {EACH * users} places of their own records as ids, twice each, with `id:` before them, and in "
            f"the header `original-record`: {trial.duplicates} duplicates, everything else applied"
        )


def _placed(sender: Sender, user: str, draw: random.Random) -> list[str]:
    """Send a user's first records, one of them broken -> their places as text, in seeded order."""
    sent = [sender.good(CLICKS, user.encode(), _click(user)) for _ in range(EACH - 1)]
    sent.append(sender.bad(user, Poison(CLICKS, user.encode(), b"{", "decode", "malformed_json")))
    sender.flush()
    found = [future.get(30) for future in sent]
    draw.shuffle(found)
    return [f"{place.topic}/{place.partition}/{place.offset}" for place in found]


def _spell(sender: Sender, user: str, place: str) -> None:
    key = user.encode()
    sender.good(CLICKS, key, _click(user, id=place))
    sender.good(CLICKS, key, _click(user), [("original-record", place.encode())])
    sender.good(CLICKS, key, _click(user, id=f"id:{place}"))
    sender.again(CLICKS, key, _click(user, id=place))


def _click(user: str, **fields: Any) -> bytes:
    return json.dumps({"user": user, "item": "item-1", "time": NOW} | fields).encode()
