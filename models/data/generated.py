"""Generate a small made-up world, for use without data: users with shifting tastes move among genres of titled items.

It is a simulation. Every user has a current genre and stays in it for some events. The next genre depends on the one
before (the same chain for all users), so the order of events predicts what comes next and popularity does not.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.data.dataset import NAN, DataSet, Event, dataset
from models.data.source import Scale
from stream.core.messages import CLICK, COMMENT, RATING, Item

GENRES: Final = (
    ("Western", "Dust", "Canyon", "Outlaw", "Saddle", "Sheriff"),
    ("Space", "Orbit", "Comet", "Starship", "Nebula", "Android"),
    ("Romance", "Letters", "Wedding", "Kiss", "Summer", "Heart"),
    ("Crime", "Detective", "Heist", "Alibi", "Witness", "Harbour"),
    ("Fantasy", "Dragon", "Wizard", "Kingdom", "Spell", "Forest"),
    ("Music", "Song", "Piano", "Concert", "Dancer", "Choir"),
    ("War", "Trench", "Soldier", "Bridge", "Convoy", "Retreat"),
    ("Nature", "River", "Wolves", "Glacier", "Meadow", "Ocean"),
)
SCENES: Final = ("home", "search")
START_MS: Final = 1_700_000_000_000
LIKED: Final = ("wonderful, just what I like", "loved it", "great choice for tonight")
DISLIKED: Final = ("dull, not for me", "I gave up halfway", "a waste of time")


def generate(
    users: int = 200, items: int = 400, events: int = 40, seed: int = 0, rating_scale: Scale | None = None
) -> DataSet:
    """Generate `users` users with about `events` events each on `items` items.

    Of the events, 65 % are clicks, 25 % ratings and 10 % comments.

    Args:
        seed: Seed of the random numbers.
        rating_scale: The scale of the data set. The ratings, from 0.5 to 5, must lie on it. By default it is 0.5 to 5.

    Raises:
        DataError: A rating lies outside `rating_scale`.
    """
    draw = np.random.default_rng(seed)
    genre_of = np.arange(items) % len(GENRES)
    catalogue = [_item(number, int(genre_of[number]), draw) for number in range(items)]
    members = [np.flatnonzero(genre_of == genre) for genre in range(len(GENRES))]
    follows = np.roll(np.arange(len(GENRES)), -3)
    rows: list[Event] = []
    for user in range(users):
        genre = int(draw.integers(len(GENRES)))
        time = START_MS + int(draw.integers(30 * 86_400_000))
        unseen = [list(draw.permutation(group)) for group in members]
        for _ in range(max(4, int(draw.poisson(events)))):
            if draw.random() < 0.2:
                genre = int(follows[genre])
            taste = genre if draw.random() < 0.9 else int(draw.integers(len(GENRES)))
            if not unseen[taste]:
                continue
            time += int(draw.exponential(3_600_000)) + 1000
            rows.append(_event(f"user{user}", f"item{unseen[taste].pop()}", time, taste == genre, draw))
    return dataset("generated", rows, catalogue, rating_scale or (0.5, 5.0))


def _item(number: int, genre: int, draw: np.random.Generator) -> Item:
    name, *words = GENRES[genre]
    first, second = draw.choice(words, 2, replace=False)
    return Item(f"item{number}", f"The {first} and the {second} {number}", categories=(name,))


def _event(user: str, item: str, time: int, liked: bool, draw: np.random.Generator) -> Event:
    scene = SCENES[int(draw.integers(len(SCENES)))]
    value = float(draw.integers(7, 11) if liked else draw.integers(1, 6)) / 2
    kind = draw.random()
    if kind < 0.65:
        return Event(user, item, CLICK, time, NAN, "", scene)
    if kind < 0.9:
        return Event(user, item, RATING, time, value, "", scene)
    return Event(user, item, COMMENT, time, value, str(draw.choice(LIKED if liked else DISLIKED)), scene)
