"""The settings for the connection to the brokers, as arguments of kafka-python."""

from __future__ import annotations

from typing import Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from stream.settings import Settings
from stream.settings.security import password, tls, token


def client_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments for every kafka-python client of freshet."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.brokers.split(","),
        "security_protocol": settings.security_protocol,
    }
    if (context := tls(settings)) is not None:
        arguments["ssl_context"] = context
    if "SASL" not in settings.security_protocol:
        return arguments
    arguments["sasl_mechanism"] = settings.sasl_mechanism
    if settings.sasl_token_file is not None and settings.sasl_mechanism == "OAUTHBEARER":
        file = settings.sasl_token_file

        class TokenFile(AbstractTokenProvider):
            def token(self) -> str:
                return token(file)

        return arguments | {"sasl_oauth_token_provider": TokenFile()}
    return arguments | password(settings)
