"""Bearer tokens with scopes, from a file that is read again when it changes.

One token a line: a name for the log and the rate limit, its scopes separated by commas, and the token.

    shop read,write 3kTqYB0mWcQ0b1rAfq7yTn5W2uVbX9sD
    ops  read,write,admin 0Zx2JvTqYB0mWcQ0b1rAfq7yTn5W2uVb

read: recommendations, items. write: events. admin: users' states and changes of items. `#` begins a comment line.
"""

from __future__ import annotations

import hmac
import logging
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from stream.core.errors import SettingsError
from stream.gateway.problems import ProblemError

READ: Final = "read"
WRITE: Final = "write"
ADMIN: Final = "admin"
SCOPES: Final = (READ, WRITE, ADMIN)
LEAST: Final = 32
"""Characters of a token."""
MAX_FILE: Final = 1 << 20

CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="freshet"'}

log = logging.getLogger("freshet.gateway")


class Token(NamedTuple):
    """A token of the file. `digest`: its SHA-256."""

    name: str
    scopes: frozenset[str]
    digest: bytes


class Caller(NamedTuple):
    """Who sends a request: a token's name, or an address."""

    name: str
    scopes: frozenset[str]


def read_tokens(file: Path) -> tuple[Token, ...]:
    """Return the tokens in a file. Raises SettingsError with the line that is wrong, never with a token."""
    try:
        if file.stat().st_size > MAX_FILE:
            raise SettingsError(f"serve_tokens: {file} is larger than {MAX_FILE} bytes")
        text = file.read_text("utf-8")
    except OSError as error:
        raise SettingsError(f"serve_tokens: {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"serve_tokens: {file} is not UTF-8") from None
    found: dict[bytes, Token] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        token = _token(line.split(), f"serve_tokens: {file} line {number}")
        if token.digest in found:
            raise SettingsError(f"serve_tokens: {file} line {number}: the token of {found[token.digest].name} again")
        found[token.digest] = token
    if not found:
        raise SettingsError(f"serve_tokens: {file} holds no token: expected lines of a name, scopes and a token")
    return tuple(found.values())


def _token(words: list[str], where: str) -> Token:
    if len(words) != 3:
        raise SettingsError(f"{where}: found {len(words)} words, expected a name, scopes and a token")
    name, scope_names, token = words
    scopes = frozenset(scope_names.split(","))
    if wrong := sorted(scopes - set(SCOPES)):
        raise SettingsError(f"{where}: found the scope {wrong[0][:20]!r}, expected some of {', '.join(SCOPES)}")
    if len(token) < LEAST or not all(32 < ord(char) < 127 for char in token):
        raise SettingsError(f"{where}: expected a token of at least {LEAST} printable ASCII characters")
    return Token(name, scopes, sha256(token.encode()).digest())


class Tokens:
    """The tokens in force. Raises SettingsError as `read_tokens` does.

    Args:
        file: The file; None: there are no tokens, and everybody may do everything.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._tokens = read_tokens(file) if file is not None else ()
        self._stamp = self._look()

    @property
    def required(self) -> bool:
        return self._file is not None

    def refresh(self) -> None:
        """Read the file again if it has changed. A bad file is logged, and the former tokens stay in force."""
        stamp = self._look()
        if self._file is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = read_tokens(self._file)
        except SettingsError as error:
            log.error("the former tokens stay in force: %s", error)
        else:
            log.info("tokens read", extra={"tokens": len(self._tokens)})

    def caller(self, authorization: bytes | None, address: str, scope: str) -> Caller:
        """Return who sends a request.

        Args:
            authorization: The header Authorization.
            address: The client's address.
            scope: What the request needs; "" for nothing.
        Raises:
            ProblemError: There is no valid token, or it lacks the scope.
        """
        if self._file is None or not scope:
            return Caller(address, frozenset(SCOPES))
        if authorization is None:
            raise ProblemError("unauthorized", "the header Authorization: Bearer TOKEN is missing", headers=CHALLENGE)
        kind, _, given = authorization.partition(b" ")
        digest = sha256(given.strip()).digest()
        found: Token | None = None
        for token in self._tokens:  # all of them: the time does not tell which one is near
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None or kind.lower() != b"bearer":
            raise ProblemError("unauthorized", "the bearer token is not known", headers=CHALLENGE)
        if scope not in found.scopes:
            raise ProblemError("forbidden", f"the token {found.name} lacks the scope {scope}")
        return Caller(f"token {found.name}", found.scopes)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat() if self._file is not None else None
        except OSError:  # it is being replaced
            return None
        return None if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ino)
