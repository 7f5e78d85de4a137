"""Rules of editors: which are in force, whom they apply to, and what contradicts what (docs/rules.md). Pure.

What is in force follows from the newest record of each rule alone, in the order of their offsets: a record is left out if
it is malformed or contradicts one before it. So every process that has read the topic to an offset, compacted or not, has
the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from stream.core.errors import RULE_REASONS, RecordError
from stream.core.filters import ITEM, Filter, FilterError, Named, parse
from stream.core.json_body import JsonDecoder
from stream.core.keys import FORMS
from stream.core.messages import Rule, Segment
from stream.core.times import hint, unit

BLOCK: Final = "block"
ONLY: Final = "only"
BOOST: Final = "boost"
PIN: Final = "pin"
CAP: Final = "cap"
KINDS: Final = (BLOCK, ONLY, BOOST, PIN, CAP)
OF_ITEMS: Final = (BLOCK, ONLY, BOOST)
"""Kinds that are about items, whatever is shown beside them."""

MOST_RULES: Final = 1000
CONTRADICTION, TOO_MANY, UNEXPECTED = RULE_REASONS
"""Reasons; UNEXPECTED: no rule, or none of its kind, has the field."""
HUNDRED: Final = 100
_ALWAYS: Final = 1 << 60

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    BLOCK: ("filter",), ONLY: ("filter",), BOOST: ("filter", "factor"), PIN: ("item", "place"), CAP: ("most",),
}  # fmt: skip
_OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {CAP: ("category",)}
_PARTICULAR: Final = ("filter", "factor", "item", "place", "most", "category")
DECODER: Final = JsonDecoder(Rule, texts=True)
"""Reads a rule, unchecked beyond its schema. Its errors show texts: a rule has none of a user."""

ACTIVE: Final = "active"
SCHEDULED: Final = "scheduled"
EXPIRED: Final = "expired"
REFUSED: Final = "refused"
"""States of a rule."""


class Audience(NamedTuple):
    """Whom a rule applies to: all conditions must hold.

    Attributes:
        users: The users' keys; None: any.
        least: Smallest number of events.
        most: Largest number of events.
        share: (salt, low, high): users whose share of 100 is at least low and below high; None: any.
    """

    users: frozenset[bytes] | None = None
    least: int = 0
    most: int = _ALWAYS
    share: tuple[str, int, int] | None = None

    def has(self, user: bytes, seq: int) -> bool:
        """Return whether a user is in it. `user` is the key; b"": nobody's, such as a visitor's session."""
        if not self.least <= seq <= self.most:
            return False
        if self.users is not None and user not in self.users:
            return False
        if self.share is None:
            return True
        salt, low, high = self.share
        return bool(user) and low <= share(user, salt) < high

    def meets(self, other: Audience) -> bool:
        """Return whether a user may be in both."""
        if self.most < other.least or other.most < self.least:
            return False
        if self.users is not None and other.users is not None and self.users.isdisjoint(other.users):
            return False
        if self.share is None or other.share is None or self.share[0] != other.share[0]:
            return True
        return self.share[1] < other.share[2] and other.share[1] < self.share[2]


EVERYBODY: Final = Audience()


def share(user: bytes, salt: str) -> int:
    """Return a user's share, 0 to 99: blake2b-64 of salt, U+0000 and key, big-endian, modulo 100."""
    digest = blake2b(salt.encode() + b"\0" + user, digest_size=8).digest()
    return int.from_bytes(digest, "big") % HUNDRED


@dataclass(frozen=True, slots=True)
class Active:
    """One acceptable rule, ready to be applied. Fields that its kind does not have are empty.

    Attributes:
        rule: Its id.
        since: Epoch ms from which it holds.
        until: Epoch ms from which it holds no more.
        message: The rule as it was written.
    """

    rule: str
    kind: str
    filtered: Filter | None
    factor: float
    item: str
    place: int
    category: str | None
    most: int
    scene: str | None
    audience: Audience
    since: int
    until: int
    message: Rule = field(compare=False)

    def holds(self, scene: str | None, now_ms: int) -> bool:
        """Return whether it applies to slates of a scene at a time. A rule with a scene applies to that scene only."""
        return self.since <= now_ms < self.until and (self.scene is None or self.scene == scene)

    def state(self, now_ms: int) -> Literal["active", "scheduled", "expired"]:
        """Return where a moment is: within the rule's times (ACTIVE), before (SCHEDULED) or after them (EXPIRED)."""
        if now_ms < self.since:
            return SCHEDULED
        return ACTIVE if now_ms < self.until else EXPIRED

    def meets(self, other: Active) -> bool:
        """Return whether both may apply to one slate."""
        return (
            (self.scene is None or other.scene is None or self.scene == other.scene)
            and self.since < other.until
            and other.since < self.until
            and self.audience.meets(other.audience)
        )


def read(key: bytes | None, value: bytes, form: str) -> Active:
    """Return the rule in one record.

    Args:
        key: The record's key: the rule's id in UTF-8.
        value: The record's value.
        form: The setting `key`, for the users of a segment.

    Raises:
        RecordError: It is not acceptable.
    """
    name = name_of(key)
    message = DECODER.decode(value)
    if message.rule != name:
        raise RecordError("key", "key_mismatch", "rule", "the key is not the body's rule in UTF-8")
    return active(message, form)


def name_of(key: bytes | None) -> str:
    """Return the id of a rule from a record's key. Raises RecordError."""
    try:
        name = str(key or b"", "utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("key", "bad_key", "rule", f"the key is not UTF-8 at byte {error.start}") from None
    if not name:
        raise RecordError(
            "key", "null_key" if key is None else "bad_key", "rule", "there is no key; expected the rule's id"
        )
    return name


def active(message: Rule, form: str) -> Active:
    """Return a rule, checked beyond its schema. Raises RecordError, which names the field."""
    kind = message.kind
    allowed = (*_NEEDED[kind], *_OPTIONAL.get(kind, ()))
    for name in _NEEDED[kind]:
        if getattr(message, name) is None:
            raise RecordError("validate", "missing_field", name, f"a rule of kind {kind} needs it")
    for name in _PARTICULAR:
        if name not in allowed and getattr(message, name) is not None:
            raise RecordError(
                "validate", UNEXPECTED, name, f"a rule of kind {kind} does not have it; expected {', '.join(allowed)}"
            )
    try:
        filtered = None if message.filter is None else parse(message.filter)
    except FilterError as error:
        raise RecordError("validate", "out_of_range", error.path, str(error)) from None
    for name in ("since", "until"):
        time = getattr(message, name)
        if time is not None and (likely := unit(time)):
            raise RecordError("validate", "out_of_range", name, f"expected epoch milliseconds; {hint(time)}", likely)
    since, until = message.since or 0, _ALWAYS if message.until is None else message.until
    if since >= until:
        raise RecordError("validate", "out_of_range", "until", f"expected a time after since ({since}), got {until}")
    return Active(
        message.rule, kind, filtered, message.factor or 1.0, message.item or "", message.place or 0, message.category,
        message.most or 0, message.scene, _audience(message.segment, form), since, until, message,
    )  # fmt: skip


def _audience(segment: Segment | None, form: str) -> Audience:
    if segment is None:
        return Audience()
    least, most = segment.min_seq or 0, _ALWAYS if segment.max_seq is None else segment.max_seq
    if least > most:
        raise RecordError(
            "validate", "out_of_range", "segment.max_seq", f"expected at least min_seq ({least}), got {most}"
        )
    part = None
    if segment.share is not None:
        low, high = segment.share
        if low >= high:
            detail = f"expected a share from 0 to 100 that ends after it begins, got {low} to {high}"
            raise RecordError("validate", "out_of_range", "segment.share", detail)
        part = (segment.salt, low, high)
    users = None
    if segment.users is not None:
        users = frozenset(key for user in segment.users if (key := FORMS[form].write(user)) is not None)
    return Audience(users, least, most, part)


def contradiction(one: Active, other: Active) -> str:
    """Return why two rules cannot both be in force; "" if they can."""
    kinds = {one.kind, other.kind}
    if kinds == {PIN}:
        if one.place == other.place:
            found = f"both pin an item at place {one.place}"
        elif one.item == other.item:
            found = f"both pin the item {one.item!r}, at places {other.place} and {one.place}"
        else:
            return ""
    elif kinds == {BLOCK, ONLY}:
        if one.filtered != other.filtered:
            return ""
        found = "one blocks exactly the items that the other allows"
    elif kinds == {BLOCK, PIN}:
        block, pin = (one, other) if one.kind == BLOCK else (other, one)
        if not (
            isinstance(block.filtered, Named) and block.filtered.member == ITEM and pin.item in block.filtered.names
        ):
            return ""
        found = f"one pins the item {pin.item!r}, which the other blocks"
    else:
        return ""
    return (
        f"it contradicts the rule {other.rule!r}: {found}, and both may apply to one slate" if one.meets(other) else ""
    )


class Refused(NamedTuple):
    """A record of the rules topic that is not in force, and why. `reason` is one of REASONS, or one of this module."""

    rule: str
    offset: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, eq=False)
class RuleSet:
    """The rules in force at one offset of the rules topic.

    Attributes:
        offset: Last applied offset; -1 for none.
        rules: In the order of their offsets.
        refused: The newest records that are not in force.
        known: Rule -> the offset of its newest record.
    """

    offset: int = -1
    rules: tuple[Active, ...] = ()
    refused: tuple[Refused, ...] = ()
    known: Mapping[str, int] = field(default_factory=dict)

    def applying(
        self, user: bytes, seq: int, scene: str | None, now_ms: int, kinds: Collection[str] = KINDS
    ) -> tuple[int, ...]:
        """Return the indices of the rules of some kinds that apply to a slate."""
        rules = self.rules
        return tuple(index for index in self.holding(scene, now_ms, kinds) if rules[index].audience.has(user, seq))

    def holding(self, scene: str | None, now_ms: int, kinds: Collection[str] = KINDS) -> tuple[int, ...]:
        """Return the indices of the rules of some kinds that apply to slates of a scene at a time, of some or all users."""
        return tuple(index for index, rule in enumerate(self.rules) if rule.kind in kinds and rule.holds(scene, now_ms))

    def refusal(self, one: Active) -> str:
        """Return why a rule could not be put beside these; "" if it could."""
        others = [rule for rule in self.rules if rule.rule != one.rule]
        if len(others) >= MOST_RULES:
            return f"there are {len(others)} rules already, expected at most {MOST_RULES}"
        return next((found for rule in others if (found := contradiction(one, rule))), "")


NO_RULES: Final = RuleSet()


class RuleBook:
    """Applies the rules topic. It must have only one writer thread; readers take `current` once and use that.

    Args:
        form: The setting `key`.
    """

    def __init__(self, form: str) -> None:
        self._form = form
        self._newest: dict[str, tuple[int, Active | Refused]] = {}
        self._counted: dict[str, int] = {}  # rule -> offset of the record that was reported as refused
        self.current = NO_RULES

    def apply(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> list[Refused]:
        """Apply records (offset, key, value) in the order of the topic. Return what is refused and was not before.

        A null value deletes a rule.
        """
        nameless = []
        for offset, key, value in records:
            try:
                name = name_of(key)
            except RecordError as error:
                nameless.append(Refused("", offset, error.reason, error.field, str(error)))
                continue
            self._newest.pop(name, None)
            if value is None:
                continue
            try:
                found: Active | Refused = read(key, value, self._form)
            except RecordError as error:
                found = Refused(name, offset, error.reason, error.field, str(error))
            self._newest[name] = offset, found
        last = max((record[0] for record in records), default=self.current.offset)
        self.current = self._now(max(last, self.current.offset))
        fresh = [one for one in self.current.refused if self._counted.get(one.rule) != one.offset]
        self._counted = {one.rule: one.offset for one in self.current.refused}
        return [*nameless, *fresh]

    def _now(self, offset: int) -> RuleSet:
        """Return the rules in force now.

        A rule that was in force before contradicts none of those before it that were, too. So it is compared only with
        those that were not.
        """
        before = {rule.rule: rule for rule in self.current.rules}
        fresh: list[Active] = []
        rules: list[Active] = []
        refused: list[Refused] = []
        for name, (at, found) in self._newest.items():  # a new record moves a rule to the end: in the order of offsets
            if isinstance(found, Refused):
                refused.append(found)
                continue
            kept = before.get(name) is found
            if len(rules) >= MOST_RULES:
                refused.append(Refused(name, at, TOO_MANY, "", f"expected at most {MOST_RULES} rules"))
            elif why := next((why for rule in (fresh if kept else rules) if (why := contradiction(found, rule))), ""):
                refused.append(Refused(name, at, CONTRADICTION, "", why))
            else:
                rules.append(found)
                if not kept:
                    fresh.append(found)
        return RuleSet(offset, tuple(rules), tuple(refused), {name: at for name, (at, _) in self._newest.items()})
