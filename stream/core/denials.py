"""Kafka's errors for a missing permission or a refused login, as one line. It uses their names, and no client."""

from __future__ import annotations

from typing import Any, Final

from stream.core.errors import BrokerError

DENIED: Final = {
    "TopicAuthorizationFailedError": "topic",
    "GroupAuthorizationFailedError": "group",
    "ClusterAuthorizationFailedError": "cluster",
    "TransactionalIdAuthorizationFailed": "transactional id",
}
"""The errors of aiokafka and of kafka-python for a missing ACL -> the kind of resource that they are about."""

REFUSED: Final = frozenset({"SaslAuthenticationFailedError", "SaslAuthenticationFailed", "AuthenticationFailedError",
                            "UnsupportedSaslMechanismError", "IllegalSaslStateError"})  # fmt: skip


def refusal(error: BaseException, name: str = "", operation: str = "") -> BrokerError | None:
    """Return a client's error as one line that says what the broker refuses; None if it is not a refusal.

    Args:
        error: The client's error.
        name: The requested resource, if the caller knows it better than the error does.
        operation: The requested operation, likewise.
    """
    kind = type(error).__name__
    if kind in DENIED:
        resource = name or ", ".join(str(part) for part in _flat(error.args) if part) or "?"
        what = f" ({operation})" if operation else ""
        return BrokerError(f"the broker denies access: {DENIED[kind]} {resource}{what}; an ACL is missing")
    if kind in REFUSED:
        return BrokerError(f"the broker rejected the credentials: {_short(error)}")
    return None


def _flat(parts: Any) -> Any:
    for part in parts:
        if isinstance(part, (set, frozenset, list, tuple)):
            yield from _flat(sorted(part, key=str))
        else:
            yield part


def _short(error: BaseException) -> str:
    """Return the message without the type's name, which the clients put before it once or twice."""
    return " ".join(str(error).split()).rpartition("Error: ")[2][:200]
