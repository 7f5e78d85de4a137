"""How aiokafka's clients authenticate, from the security settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from stream.settings import Settings
from stream.settings.security import password, tls, token


def security_arguments(settings: Settings) -> dict[str, Any]:
    """Return the security arguments of aiokafka's clients."""
    arguments: dict[str, Any] = {"security_protocol": settings.security_protocol, "ssl_context": tls(settings)}
    if "SASL" not in settings.security_protocol:
        return arguments
    arguments["sasl_mechanism"] = settings.sasl_mechanism
    if settings.sasl_token_file is not None and settings.sasl_mechanism == "OAUTHBEARER":
        return arguments | {"sasl_oauth_token_provider": token_provider(settings.sasl_token_file)}
    return arguments | password(settings)


def token_provider(file: Path) -> Any:
    """Return a token provider for aiokafka that reads a token file."""

    class TokenFile(AbstractTokenProvider):
        async def token(self) -> str:
            return token(file)

    return TokenFile()
