"""Kafka's errors for a missing right or a refused login, as one line. It goes by their names, and imports no client."""

from __future__ import annotations

from typing import Any, Final

from stream.core.errors import BrokerError

DENIED: Final = {
    "TopicAuthorizationFailedError": "topic",
    "GroupAuthorizationFailedError": "group",
    "ClusterAuthorizationFailedError": "cluster",
    "TransactionalIdAuthorizationFailed": "transactional id",
}
"""The errors of aiokafka and of kafka-python for a missing ACL -> what they are about."""

REFUSED: Final = frozenset({"SaslAuthenticationFailedError", "SaslAuthenticationFailed", "AuthenticationFailedError",
                            "UnsupportedSaslMechanismError", "IllegalSaslStateError"})  # fmt: skip


def refusal(error: BaseException, name: str = "", operation: str = "") -> BrokerError | None:
    """A client's error as one line that says what the broker refuses; None where it is no refusal.

    name, operation: what was asked for, where the caller knows it better than the error does.
    """
    kind = type(error).__name__
    if kind in DENIED:
        said = name or ", ".join(str(part) for part in _flat(error.args) if part) or "?"
        what = f" ({operation})" if operation else ""
        return BrokerError(f"the broker does not allow us this: {DENIED[kind]} {said}{what}; an ACL is missing")
    if kind in REFUSED:
        return BrokerError(f"the broker refuses our credentials: {_short(error)}")
    return None


def _flat(parts: Any) -> Any:
    for part in parts:
        if isinstance(part, (set, frozenset, list, tuple)):
            yield from _flat(sorted(part, key=str))
        else:
            yield part


def _short(error: BaseException) -> str:
    """Without the type's name, which the clients put before the message once or twice."""
    return " ".join(str(error).split()).rpartition("Error: ")[2][:200]
