"""Every error that freshet raises on purpose, in one tree, each with the exit code that its command ends with.

    FreshetError            70  a broken invariant: a bug, or damaged data
     +- SettingsError       78  a setting has a wrong value, or two settings disagree
     +- TopologyError       78  a topic is missing, or its partitions do not fit
     +- BundleError         65  a bundle is damaged, incomplete, or does not fit this version
     +- RecordError         65  one message is not acceptable (becomes a dead letter, never an exit)
     +- DataError           65  a data folder, or a batch of records, is not in a known form
     +- StateError          65  a state record cannot be decoded
     +- ProviderError       69  the asked-for accelerator is not usable
     +- BrokerError         69  no broker answers, or it refuses us
     +- DownloadError       69  something needed from outside could not be fetched or has a wrong hash
     +- LossError           76  source records were deleted before they were read; `--accept-loss` goes on
     +- LeaseError          75  the group may have given our partitions away: restart
     |   +- FencedError    75  it has: another worker has claimed them
     +- DiskError           74  the data folder's disk is full or fails

Codes follow sysexits.h where it has one. A worker that hangs inside a library ends with 1 (stream.process.watchdog).
`freshet verify`
adds 1 (a promise is broken) and 3 (cannot be judged).
"""

from __future__ import annotations


class FreshetError(Exception):
    """Base of all; `exit_code` is what a command ends with when this reaches it."""

    exit_code = 70


class SettingsError(FreshetError):
    exit_code = 78


class TopologyError(FreshetError):
    exit_code = 78


class BundleError(FreshetError):
    exit_code = 65


class DataError(FreshetError):
    exit_code = 65


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
    """No memory, or a GPU that fails: nothing that was computed is at fault."""


class RecordError(FreshetError):
    """One message is not acceptable.

    `stage` is where it failed (key, partition, decode, validate, inference), `reason` a short fixed code from `REASONS` (a metric
    label, so never free text), `field` the offending field or "", and the message says what was expected. `unit` is the one that
    a refused time is likely in, "" where nothing speaks for one.
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
        """The message behind its field; alone where the whole value is meant."""
        return f"{self.field}: {self}" if self.field else str(self)


REASONS = {
    "null_key": "The record has no key; it must be the user id, in the form that the setting `key` names.",
    "bad_key": "The key is not UTF-8, or empty.",
    "null_value": "The record has no value (a tombstone); it must be a JSON object.",
    "empty_value": "The value has no bytes; it must be a JSON object.",
    "not_utf8": "The value is not UTF-8: another encoding, compressed, or not text at all.",
    "malformed_json": "The value is not JSON (RFC 8259): cut off, NaN or Infinity, a byte order mark, a lone surrogate.",
    "too_deep": "Arrays and objects are nested more than 32 levels deep.",
    "too_large": "A text is longer than its field may be.",
    "missing_field": "A field that every such message needs is absent.",
    "wrong_type": "A field, or the whole value, is of another JSON type than the schema says.",
    "out_of_range": "A field is of the right type, its value not one that the schema allows.",
    "rating_out_of_scale": "`value` lies outside the setting `rating_scale`.",
    "key_mismatch": "The key is not the body's `user` in the form that the setting `key` names. The message says so where it "
    "has another form; else one of the two is wrong, and only the producer knows which.",
    "mispartitioned": "The record lies on another partition than murmur2(key) mod n, and was not sent on: the setting "
    "`misplaced` says so, or it is too large for its topic with its place beside it. The record itself is good; clients.md has "
    "the cure.",
    "far_past": "`time` is before the setting `min_time`: not epoch milliseconds (seconds, most likely), or really that old.",
    "deleted": "A change event of Debezium that deletes a row. What a state has taken in stays in it: no event is taken back.",
    "far_future": "`time` is more than one hour after the append time: a wrong clock, or not epoch milliseconds.",
    "inference": "The model fails on this event, and passes without it. The record itself is good.",
}
"""Why a record is not acceptable: the values of a dead letter's header `reason`, and what each means."""
