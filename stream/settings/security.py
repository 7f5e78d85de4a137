"""How every client of freshet proves who it is, and how it makes sure of the broker: TLS, SASL, and refusals in plain words.

Certificates are always checked, the broker's host name too; nothing turns that off. Passwords come from the environment
or a file (stream.settings), bearer tokens from a file that is read again for each connection, so that it can be renewed.
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
PROBE: Final = 3.0  # seconds that one look at a broker's certificate may take

GRACE: Final = 60.0
"""Seconds for which a running process goes by certificates whose files are not good any more."""

log = logging.getLogger("freshet.security")


class _Last(NamedTuple):
    """The last good context of some files. failed: when they were first found wrong since; None: they are good."""

    context: ssl.SSLContext
    failed: float | None = None


_last: dict[tuple[object, ...], _Last] = {}


def tls(settings: Settings) -> ssl.SSLContext | None:
    """What every client verifies brokers with; None without TLS. Raises SettingsError naming the file that is no good.

    Files that were good once and are not now are being replaced, most likely: for GRACE seconds what they held counts on, and
    the log says so.
    """
    if "SSL" not in settings.security_protocol:
        return None
    password = settings.ssl_keypassword.get_secret_value()
    files = [one and one.absolute() for one in (settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile)]
    place = (*files, password)
    try:
        context = _context(settings)
    except SettingsError as error:
        last = _last.get(place)
        if last is None:
            raise
        now = monotonic()
        since = now if last.failed is None else last.failed
        if now - since > GRACE:
            raise SettingsError(f"{error}; waited {now - since:.0f} s for good files") from None
        if last.failed is None:
            log.warning(
                "waits up to %g s for the files of TLS to be replaced, and goes by the former: %s", GRACE, error
            )
            _last[place] = last._replace(failed=now)
        return last.context
    _last[place] = _Last(context)
    return context


def _context(settings: Settings) -> ssl.SSLContext:
    """From the files as they are now."""
    ca, certificate, key = settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ValueError) as error:
        raise SettingsError(f"ssl_cafile: {ca} holds no certificates that can be read: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        password = settings.ssl_keypassword.get_secret_value()  # "" rather than OpenSSL's question at the terminal
        try:
            context.load_cert_chain(certificate, key, password)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"ssl_certfile, ssl_keyfile: {certificate} and {key or certificate} are no certificate with its key, "
                f"or ssl_keypassword is wrong: {_reason(error)}"
            ) from None
    return context


def token(file: Path) -> str:
    """The bearer token in `file`, as it is now. Raises BrokerError naming the file, never its content."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TOKEN + 1)
    except OSError as error:
        raise BrokerError(f"sasl_token_file: {file} cannot be read: {error.strerror}") from None
    found = content.strip()
    if not found or len(content) > MAX_TOKEN or not all(32 < byte < 127 for byte in found):
        raise BrokerError(
            f"sasl_token_file: {file} holds no token: expected one line of at most {MAX_TOKEN} characters"
        )
    return found.decode("ascii")


def password(settings: Settings) -> dict[str, str]:
    """The name and password of SASL, as both clients call them."""
    return {
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def certificate_problem(settings: Settings) -> str:
    """What is wrong with the certificate of the first broker that has a wrong one, "" where nothing is or none answers.

    Clients say only that they cannot connect, and try again; this is the one look that finds the reason.
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
            return f"the broker at {address} does not speak TLS with us: {_reason(error)}"
        except (OSError, ValueError):
            continue  # not there, or not an address: whoever called says so
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error)
