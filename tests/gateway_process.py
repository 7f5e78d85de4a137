"""Real gateway processes for the tests: start, ask, kill, stop."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from stream.settings import Settings
from tests.worker_process import WorkerProcess, environment

JSON = "application/json"


class Answer(NamedTuple):
    """status, headers in lower case, and the body: JSON as Python has it, any other as text."""

    status: int
    headers: dict[str, str]
    body: Any


class GatewayProcess(WorkerProcess):
    """One `freshet serve` with its own replica folder and log."""

    def __init__(self, settings: Settings, folder: Path, name: str = "g1", **more: Any) -> None:
        super().__init__(settings, folder, name)
        self.replica_dir = folder / f"replica-{name}"
        values = {"replica_dir": self.replica_dir, "serve_port": 0, "provider": "cpu"} | more
        self._environment = environment(settings, **values)
        self.command = ["deploy.cli", "serve"]
        self._known_port = 0

    def start(self) -> GatewayProcess:
        self._known_port = 0
        super().start()
        return self

    def port(self) -> int:
        if not self._known_port:
            started = (line["port"] for line in self.lines() if line.get("message") == "gateway starts")
            self._known_port = next(started, 0)
        return self._known_port

    def wait_ready(self, seconds: float = 120) -> GatewayProcess:
        super().wait_ready(seconds)
        return self

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        media: str = JSON,
        timeout: float = 30,
    ) -> Answer:
        """Send one request. body: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=timeout)
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            sent = ({"Content-Type": media} if raw is not None else {}) | (headers or {})
            connection.request(method, path, raw, sent)
            answer = connection.getresponse()
            text = answer.read()
            found = {name.lower(): value for name, value in answer.getheaders()}
            is_json = "json" in found.get("content-type", "") and text
            return Answer(answer.status, found, json.loads(text) if is_json else text.decode())
        finally:
            connection.close()

    def slate(self, user: str, query: str = "") -> Answer:
        return self.ask("GET", f"/v1/users/{quote(user, safe='')}/recommendations{'?' + query if query else ''}")
