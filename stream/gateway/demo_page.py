"""The demo page: files of the package, sent as they are.

The page holds no data. What it shows it asks the API for, from its own origin and with the token that its user enters, so
it can show nothing that another client with this token could not. Its policy forbids inline scripts and styles, other
origins, and any text to be read as HTML.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final, Literal, get_args

from stream.gateway.problems import ProblemError
from stream.gateway.routing import Answer

File = Literal["page.css", "main.js", "api.js", "slate.js", "view.js", "icon.svg"]
"""The files that the page loads."""
PAGE: Final = "index.html"
FOLDER: Final = "browser"
MEDIA: Final = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}  # fmt: skip
POLICY: Final = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'", "base-uri 'none'",
    "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
))  # fmt: skip
HEADERS: Final = {
    "Content-Security-Policy": POLICY, "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class DemoPage:
    """Reads the files once."""

    def __init__(self) -> None:
        folder = files("stream.gateway").joinpath(FOLDER)
        self._page = folder.joinpath(PAGE).read_bytes()
        self._files = {name: folder.joinpath(name).read_bytes() for name in get_args(File)}

    def answer(self, name: str | None = None) -> Answer:
        """Return the page, or a file that it loads. Raises ProblemError if there is no such file."""
        if name is None:
            return Answer(self._page, media=MEDIA["html"], headers=HEADERS)
        content = self._files.get(name)
        if content is None:
            raise ProblemError("not-found", "the page has no such file", field="file")
        return Answer(content, media=MEDIA[name.rpartition(".")[2]], headers=HEADERS)
