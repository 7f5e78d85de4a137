"""Every error that freshet raises on purpose, in one tree, each with the exit code that its command ends with.

    FreshetError            70  a broken invariant: a bug, or damaged data
     +- SettingsError       78  a setting has a wrong value, or two settings disagree
     +- TopologyError       78  a topic is missing, or its partitions do not fit
     +- BundleError         65  a bundle is damaged, incomplete, or does not fit this version
     +- RecordError         65  one message is not acceptable (becomes a dead letter, never an exit)
     +- DataError           65  a data folder is not in a known form
     +- StateError          65  a state record cannot be decoded
     +- ProviderError       69  the asked-for accelerator is not usable
     +- BrokerError         69  no broker answers, or it refuses us
     +- DownloadError       69  something needed from outside could not be fetched or has a wrong hash
     +- LossError           76  source records were deleted before they were read; `--accept-loss` goes on
     +- LeaseError          75  the group may have given our partitions away: restart
     |   +- FencedError    75  it has: another worker has claimed them
     +- DiskError           74  the data folder's disk is full or fails

Codes follow sysexits.h where it has one. `freshet verify` adds 1 (a promise is broken) and 3 (cannot be judged).
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


class RecordError(FreshetError):
    """One message is not acceptable.

    `stage` is where it failed (key, partition, decode, validate, inference), `reason` a short fixed code from `REASONS` (a metric
    label, so never free text), `field` the offending field or "", and the message says what was expected.
    """

    exit_code = 65

    def __init__(self, stage: str, reason: str, field: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason
        self.field = field


REASONS = (
    "null_key",
    "bad_key",
    "null_value",
    "empty_value",
    "not_utf8",
    "malformed_json",
    "too_deep",
    "too_large",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "rating_out_of_scale",
    "key_mismatch",
    "mispartitioned",
    "far_future",
    "inference",
)
