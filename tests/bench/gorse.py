"""Gorse beside freshet: its all-in-one server on SQLite, with matrix factorisation, fitted once and then asked.

Gorse (gorse.io, 0.5.11) keeps a ranked list for each user and answers from it; `python -m tests.bench.gorse FOLDER` builds
it from its source with Go. Two of its modules are only on GitHub and not on Go's module mirror. So GORM's own dialect of SQLite
takes the place of Gorse's fork of it (the driver below both is the same), and an empty web page that of Gorse's.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from deploy.embedded_kafka import free_port
from tests.bench.traffic import Message
from tests.worker_process import until

MODULE: Final = "github.com/gorse-io/gorse"
VERSION: Final = "v0.5.11"
BATCH: Final = 1000
DIALECT: Final = "gorm.io/driver/sqlite@v1.6.0"
PAGE: Final = "github.com/gorse-io/dashboard"
STATIK: Final = "github.com/rakyll/statik"
EMPTY_PAGE: Final = f"""package dashboard

import "{STATIK}/fs"

func init() {{ fs.Register("PK\\x05\\x06" + string(make([]byte, 18))) }}
"""
CONFIG: Final = """
[database]
cache_store = "sqlite://{folder}/cache.db"
data_store = "sqlite://{folder}/data.db"
[master]
host = "127.0.0.1"
port = {rpc}
http_host = "127.0.0.1"
http_port = {port}
n_jobs = 2
meta_timeout = "1s"
[server]
default_n = 10
auto_insert_user = true
auto_insert_item = true
[recommend]
cache_size = 100
cache_expire = "72h"
[recommend.data_source]
positive_feedback_types = ["like"]
[recommend.collaborative]
type = "mf"
fit_period = "600m"
fit_epoch = 20
optimize_period = "6000m"
optimize_trials = 1
[recommend.ranker]
type = "none"
recommenders = ["collaborative"]
cache_expire = "72h"
[recommend.fallback]
recommenders = ["latest"]
"""


class Gorse:
    """One server in `folder`. port: of its API; pid: of its process."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes]
        self.port = free_port()
        text = CONFIG.format(folder=folder, port=self.port, rpc=free_port())
        (folder / "gorse.toml").write_text(text, "utf-8")

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Gorse:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def load(self, items: Sequence[str], events: Sequence[Message]) -> tuple[str, ...]:
        """Write the catalogue and the events as likes; start it again, so that it fits them at once -> the users who
        have a list of ten items then."""
        now = datetime.now(UTC).isoformat()
        self._post("items", [{"ItemId": item, "Timestamp": now} for item in items])
        likes = []
        for event in events:
            body = json.loads(event.value)
            likes.append({"FeedbackType": "like", "UserId": body["user"], "ItemId": body["item"], "Timestamp": now})
        users = tuple(dict.fromkeys(like["UserId"] for like in likes))
        self._post("users", [{"UserId": user} for user in users])
        self._post("feedback", likes)
        self._stop()
        self._start()
        found: list[str] = []

        def fitted() -> bool:
            found[:] = [user for user in users if len(self._list(user)) >= 10]
            return len(found) >= 0.8 * len(users)  # some users with a single like get none

        until(fitted, 600, lambda: f"Gorse's lists: {len(found)} of {len(users)} users have one")
        return tuple(found)

    def _list(self, user: str) -> list[Any]:
        status, found = self._ask("GET", f"/api/collaborative-filtering/{user}?n=10")
        return found if status == 200 and isinstance(found, list) else []

    def _post(self, path: str, rows: list[dict[str, Any]]) -> None:
        for first in range(0, len(rows), BATCH):
            status, answer = self._ask("POST", f"/api/{path}", rows[first : first + BATCH])
            assert status == 200, (status, answer)

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if answer.status == 200 else text
        finally:
            connection.close()

    def _start(self) -> None:
        (self._folder / "models").mkdir(exist_ok=True)  # it does not make it
        with (self._folder / "gorse.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "--config", self._folder / "gorse.toml", "--cache-path", self._folder / "models"],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(self._live, 60, "Gorse answers")

    def _live(self) -> bool:
        assert self._process.poll() is None, (self._folder / "gorse.log").read_text(errors="replace")[-2000:]
        try:
            return self._ask("GET", "/api/health/live")[0] == 200
        except OSError:
            return False

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def build(folder: Path) -> Path:
    """Build the program with Go -> where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    found = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"], stdout=subprocess.PIPE, check=True
    )
    source = folder / "gorse-source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(json.loads(found.stdout)["Dir"], source)
    for path in source.rglob("*"):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
    page = source / "no-dashboard"
    page.mkdir()
    (page / "go.mod").write_text(f"module {PAGE}\ngo 1.21\nrequire {STATIK} v0.1.8\n", "utf-8")
    (page / "page.go").write_text(EMPTY_PAGE, "utf-8")
    target = folder.resolve() / "gorse"
    for command in (
        ["go", "mod", "edit", f"-dropreplace={DIALECT}", f"-replace={PAGE}=./no-dashboard"],
        ["go", "build", "-mod=mod", "-o", str(target), "./cmd/gorse-in-one"],
    ):
        subprocess.run(command, cwd=source, check=True, env=os.environ | {"CGO_ENABLED": "0"})
    shutil.rmtree(source)
    return target


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
