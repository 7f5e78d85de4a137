"""Run the worker and the gateway for the demo: as separate processes, with JSON logs in files, stopped by SIGTERM."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from pydantic import SecretStr

from stream.core.errors import FreshetError
from stream.settings import Settings

READY_LIMIT: Final = 90.0  # seconds after which a process that is not ready counts as failed
STOP_LIMIT: Final = 35.0
PR_SET_PDEATHSIG: Final = 1


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a child process exactly these settings. It contains no secrets."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    values: dict[str, Any] = {name: getattr(settings, name) for name in type(settings).model_fields}
    return variables | {
        f"FRESHET_{name.upper()}": json.dumps(value) if isinstance(value, (list, tuple)) else str(value)
        for name, value in values.items()
        if value is not None and not isinstance(value, SecretStr)
    }


class Process:
    """Runs one `freshet worker` or `freshet serve`. As a context manager it stops the process.

    Args:
        command: The command, `worker` or `serve`.
        name: What the process calls itself in its log.
        settings: Its settings.
        log: File that receives its JSON lines.
    """

    def __init__(self, command: str, name: str, settings: Settings, log: Path) -> None:
        self.log = log
        self._command = command
        self._name = name
        self._environment = environment(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_end_with_parent if self._command == "serve" else None,
                start_new_session=True,  # Ctrl-C reaches only the demo, which then stops everything in order
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise FreshetError if the process has ended."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise FreshetError(f"the {self._name} ended with exit code {code}: {self._last()}; see {self.log}")

    def wait_ready(self) -> str:
        """Wait until /readyz reports ready -> the process's address, http://127.0.0.1:PORT.

        Raises FreshetError if the process ends or takes longer than READY_LIMIT.
        """
        end = time.monotonic() + READY_LIMIT
        port = 0
        while time.monotonic() < end:
            self.check()
            port = port or self._port()
            address = f"http://127.0.0.1:{port}"
            if port and _answers(f"{address}/readyz"):
                return address
            time.sleep(0.1)
        raise FreshetError(f"the {self._name} was not ready within {READY_LIMIT:g} s: {self._last()}; see {self.log}")

    def stop(self) -> None:
        """Stop the process: SIGTERM, then SIGKILL after STOP_LIMIT. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _lines(self) -> list[bytes]:
        return self.log.read_bytes().splitlines()

    def _port(self) -> int:
        """Return the port of its HTTP server, or 0 if the log does not name it yet."""
        for line in self._lines():
            if f'"{self._name} starts"'.encode() in line:
                return int(json.loads(line)["port"])
        return 0

    def _last(self) -> str:
        lines = [line.decode(errors="replace").strip() for line in self._lines() if line.strip()]
        return lines[-1][:300] if lines else "it printed nothing"


def _end_with_parent() -> None:
    """Have the kernel stop this process when the demo is killed: a gateway waits for a broker that is gone, a worker ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:  # noqa: S310 - http on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
