"""How every client of freshet authenticates itself and verifies the broker: TLS, SASL, and plain messages about
refusals.

Certificates and the broker's host name are always checked. Nothing turns that off. Passwords come from the environment
or a file (stream.settings). Bearer tokens come from a file that is read again for each connection, so that it can be
renewed.
"""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from stream.core.errors import BrokerError, SettingsError
from stream.settings.settings import Settings

MAX_TOKEN: Final = 64 << 10  # bytes of a bearer token
PROBE: Final = 3.0  # seconds that one check of a broker's certificate may take

GRACE: Final = 60.0
"""Seconds for which a running process keeps using certificates whose files are no longer good."""

log = logging.getLogger("freshet.security")


class _Last(NamedTuple):
    """The last good context of a set of files. `failed`: when they were first found bad since; None: they are good."""

    context: ssl.SSLContext
    failed: float | None = None


_last: dict[tuple[object, ...], _Last] = {}


def tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the context with which every client verifies brokers; None without TLS.

    Files that were good and are bad now are probably being replaced. For GRACE seconds their former content stays in
    use, and the log reports it. Raises SettingsError with the file that is bad.
    """
    if "SSL" not in settings.security_protocol:
        return None
    password = settings.ssl_keypassword.get_secret_value()
    files = [one and one.absolute() for one in (settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile)]
    key = (*files, password)
    try:
        context = _context(settings)
    except SettingsError as error:
        last = _last.get(key)
        if last is None:
            raise
        now = monotonic()
        since = now if last.failed is None else last.failed
        if now - since > GRACE:
            raise SettingsError(f"{error}; waited {now - since:.0f} s for good files") from None
        if last.failed is None:
            log.warning(
                "waiting up to %g s for the TLS files to be replaced, and using the former ones: %s", GRACE, error
            )
            _last[key] = last._replace(failed=now)
        return last.context
    _last[key] = _Last(context)
    return context


def _context(settings: Settings) -> ssl.SSLContext:
    """Return a context from the files as they are now."""
    ca, certificate, key = settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ValueError) as error:
        raise SettingsError(f"ssl_cafile: {ca} has no readable certificates: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        password = settings.ssl_keypassword.get_secret_value()  # "" so that OpenSSL does not ask at the terminal
        try:
            context.load_cert_chain(certificate, key, password)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"ssl_certfile, ssl_keyfile: {certificate} and {key or certificate} are not a certificate and its key, "
                f"or ssl_keypassword is wrong: {_reason(error)}"
            ) from None
    return context


def token(file: Path) -> str:
    """Return the bearer token that is in `file` now. Raises BrokerError with the file's name, never its content."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TOKEN + 1)
    except OSError as error:
        raise BrokerError(f"sasl_token_file: {file} cannot be read: {error.strerror}") from None
    found = content.strip()
    if not found or len(content) > MAX_TOKEN or not all(32 < byte < 127 for byte in found):
        raise BrokerError(
            f"sasl_token_file: {file} does not hold a token: expected one line of at most {MAX_TOKEN} characters"
        )
    return found.decode("ascii")


def password(settings: Settings) -> dict[str, str]:
    """Return the SASL name and password under the names that both clients use."""
    return {
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def certificate_problem(settings: Settings) -> str:
    """Return what is wrong with the first bad certificate of a broker; "" if all are good or no broker answers.

    Clients only report that they cannot connect, and retry. Only this check finds the reason.
    """
    context = tls(settings)
    if context is None:
        return ""
    for address in settings.brokers.split(","):
        host, _, port = address.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), PROBE) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                continue
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of the broker at {address} is not accepted: {error.verify_message.rstrip('.')}"
        except ssl.SSLError as error:
            return f"the TLS handshake with the broker at {address} failed: {_reason(error)}"
        except (OSError, ValueError):
            continue  # not there, or not an address: the caller reports it
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
