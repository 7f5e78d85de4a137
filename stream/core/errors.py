"""All errors that freshet raises on purpose, in one tree, each with the exit code of a command that ends with it.

    FreshetError            70  a broken invariant: a bug, or damaged data
     +- SettingsError       78  a setting has a wrong value, or two settings disagree
     +- TopologyError       78  a topic is missing, or its partitions do not fit
     +- BundleError         65  a bundle is damaged, incomplete, or does not fit this version
     +- RecordError         65  one message is not acceptable (becomes a dead letter, never an exit)
     +- DataError           65  a data folder, or a batch of records, is not in a known form
     +- StateError          65  a state record cannot be decoded
     +- ProviderError       69  the requested accelerator is not usable
     +- BrokerError         69  no broker answers, or it denies access
     +- DownloadError       69  a file could not be downloaded, or has a wrong hash
     +- LossError           76  source records were deleted before they were read; `--accept-loss` continues
     +- LeaseError          75  the group may have given our partitions to another worker: restart
     |   +- FencedError    75  another worker has claimed our partitions
     +- DiskError           74  the data folder's disk is full or fails
     +- InternalError       70  something that cannot happen: a bug, logged with where it was raised

Codes follow sysexits.h if it has one for the case. A worker that hangs inside a library ends with 1
(stream.process.watchdog). `freshet verify` adds 1 (a promise is broken) and 3 (cannot be checked).
"""

from __future__ import annotations


class FreshetError(Exception):
    """Base class of all errors. A command that this error reaches ends with `exit_code`."""

    exit_code = 70


class SettingsError(FreshetError):
    exit_code = 78


class TopologyError(FreshetError):
    exit_code = 78


class BundleError(FreshetError):
    exit_code = 65


class DataError(FreshetError):
    """Data cannot be used. The text is one line; the command prints each of `args` as a line of its own."""

    exit_code = 65

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class StateError(FreshetError):
    exit_code = 65


class ProviderError(FreshetError):
    exit_code = 69


class BrokerError(FreshetError):
    exit_code = 69


class DownloadError(FreshetError):
    exit_code = 69


class LossError(FreshetError):
    exit_code = 76


class LeaseError(FreshetError):
    exit_code = 75


class FencedError(LeaseError):
    pass


class DiskError(FreshetError):
    exit_code = 74


class MachineError(FreshetError):
    """The machine has run out of memory, or its GPU fails. The data is not at fault."""


class InternalError(FreshetError):
    """Something that cannot happen has happened: a bug in freshet. The log has the traceback."""


class RecordError(FreshetError):
    """One message is not acceptable. The error's text says what was expected.

    Attributes:
        stage: Where it failed (key, partition, decode, validate, inference).
        reason: A short fixed code from `REASONS`. It is a metric label, so never free text.
        field: The offending field, or "".
        unit: The unit that a refused time is probably in, or "" if none is likely.
    """

    exit_code = 65

    def __init__(self, stage: str, reason: str, field: str, message: str, unit: str = "") -> None:
        super().__init__(message)
        self.unit = unit
        self.stage = stage
        self.reason = reason
        self.field = field

    @property
    def named(self) -> str:
        """The message with its field in front, or the message alone if it is about the whole value."""
        return f"{self.field}: {self}" if self.field else str(self)


RULE_REASONS = ("contradiction", "too_many", "unexpected_field")
"""Reasons why a rule is refused that no other record has."""

INCOMPLETE = "incomplete"
"""Why an epoch of tables is not used: not all of its rows are there and acceptable."""
NOT_NEWER = "not_newer"
"""Why an epoch of tables is not used: its number is not above that of the one in use."""
TABLE_REASONS = (INCOMPLETE, NOT_NEWER)
"""Reasons why an epoch of tables is not used."""

REASONS = {
    "null_key": "The record has no key; it must be the user id, in the form that the setting `key` names.",
    "bad_key": "The key is not UTF-8, or empty.",
    "null_value": "The record has no value (a tombstone); it must be a JSON object.",
    "empty_value": "The value has no bytes; it must be a JSON object.",
    "not_utf8": "The value is not UTF-8: it is in another encoding, compressed, or not text at all.",
    "malformed_json": "The value is not JSON (RFC 8259): it is cut off, or has NaN, Infinity, a byte order mark or a lone "
    "surrogate.",
    "too_deep": "Arrays and objects are nested more than 32 levels deep.",
    "too_large": "A text is longer than its field may be.",
    "missing_field": "A field that every such message needs is absent.",
    "wrong_type": "A field, or the whole value, has another JSON type than the schema requires.",
    "out_of_range": "A field has the right type, but a value that the schema does not allow.",
    "rating_out_of_scale": "`value` is outside the setting `rating_scale`.",
    "key_mismatch": "The key is not the body's `user` in the form that the setting `key` names. If the key is the user in "
    "another form, the message says which. Otherwise one of the two is wrong, and only the producer knows which.",
    "mispartitioned": "The record is on another partition than murmur2(key) mod n and was not forwarded. Either the setting "
    "`misplaced` is `dead-letter`, or the record and the header with its position are too large for the topic. The record itself "
    "is good; see clients.md for the fix.",
    "far_past": "`time` is before the setting `min_time`: it is not in epoch milliseconds (probably seconds), or it is that old.",
    "deleted": "A change event of Debezium that deletes a row. A state keeps the events that it has applied; none can be undone.",
    "far_future": "`time` is more than one hour after the append time: a clock is wrong, or it is not in epoch milliseconds.",
    "inference": "The model fails with this event, and succeeds without it. The record itself is good.",
}
"""The reasons why a record is not acceptable: the values of a dead letter's header `reason`, and what each means."""
