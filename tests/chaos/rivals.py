"""The same seeded kills against freshet and against others, each judged event by event; what they hold is recorded.

All get the same events at the same rate in one topic, SIGKILL at the same instants after the first event, the data folder
deleted at the same kills, and a start at once whenever they are gone.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from deploy.verify import run as verify
from stream.core import state
from stream.core.fencing_log import CLAIM_KEY
from stream.settings import Settings
from tests.chaos.outcomes import ROOT, Rival
from tests.rivals import quix, stock
from tests.rivals.setup import Setup
from tests.rivals.verdict import Progress, UserOf, Verdict, outputs, states, verdict_of
from tests.worker_process import Events, WorkerProcess, read_all, until

QUIX_PYTHON = ROOT / ".rivals" / "bin" / "python"
QUIET = 3.0  # seconds without a new changelog record that count as done
CATCH_UP = 90.0  # seconds


@dataclass(frozen=True)
class Plan:
    """kills: SIGKILLs, wipes: those with the data deleted; gap: seconds between two, drawn from (low, high); rate: events/s;
    catch_up: seconds that it has after the last event to commit everything."""

    seed: int
    kills: int = 5
    wipes: int = 2
    gap: tuple[float, float] = (4.0, 7.0)
    rate: float = 300.0
    users: int = 200
    catch_up: float = CATCH_UP


class Subject(Protocol):
    """What is killed. `data_dir`: what a wipe deletes."""

    data_dir: Path

    def start(self) -> Any: ...

    def kill(self) -> int: ...

    @property
    def process(self) -> subprocess.Popen[bytes]: ...

    def tail(self) -> str: ...

    def close(self) -> None: ...


class Agent:
    """A rival's process with its data folder and its log."""

    def __init__(self, python: str, module: str, setup: Setup, folder: Path) -> None:
        self.data_dir = Path(setup.folder)
        self._log = folder / "agent.log"
        self._command = [python, "-m", module, setup.text()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )  # fmt: skip

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start() first"
        return self._process

    def kill(self) -> int:
        self.process.kill()
        return self.process.wait(10)

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


@dataclass(frozen=True)
class Contender:
    """One column of the comparison. judged: how its states and outputs are read, once it has caught up."""

    name: str
    version: str
    description: str
    subject: Subject
    changelog: str
    judged: Callable[[dict[str, int]], Verdict]


def freshet(settings: Settings, bundles: Path, folder: Path) -> Contender:
    def judged(sent: dict[str, int]) -> Verdict:
        report = verify(settings, wait=CATCH_UP)
        applied: dict[str, int] = {}
        for record in read_all(settings, settings.changelog_topic):
            if record.key != CLAIM_KEY:
                applied[record.key.decode()] = state.decode(record.value).seq
        wrong = sum(applied.get(user, 0) != count for user, count in sent.items())
        return Verdict(report.lost, report.double, report.uncovered, wrong)

    worker = WorkerProcess(settings, folder, bundles=bundles)
    description = f"commit_interval {settings.commit_interval:g} s"
    return Contender("freshet", version("freshet"), description, worker, settings.changelog_topic, judged)


def faust(settings: Settings, folder: Path, guarantee: str, commit_interval: float) -> Contender:
    setup = _setup(settings, folder, guarantee, commit_interval)
    agent = Agent(sys.executable, "tests.rivals.stock", setup, folder)
    changelog = stock.changelog(settings.app_id)
    description = f"processing_guarantee {guarantee.replace('-', '_')}, broker_commit_interval {commit_interval:g} s"
    judged = _read(settings, changelog, stock.user_of)
    return Contender("Faust, a table", version("faust-streaming"), description, agent, changelog, judged)


def quix_streams(settings: Settings, folder: Path, guarantee: str, commit_interval: float) -> Contender:
    setup = _setup(settings, folder, guarantee, commit_interval)
    agent = Agent(str(QUIX_PYTHON), "tests.rivals.quix", setup, folder)
    asked = [str(QUIX_PYTHON), "-c", "import importlib.metadata as m; print(m.version('quixstreams'))"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    changelog = quix.changelog(settings.app_id, settings.sources[0])
    description = f"processing_guarantee {guarantee}, commit_interval {commit_interval:g} s"
    if guarantee == "exactly-once":
        description += f", transaction.timeout.ms {quix.TRANSACTION_TIMEOUT * 1000:.0f}"
    judged = _read(settings, changelog, quix.user_of)
    return Contender("Quix Streams, state", found, description, agent, changelog, judged)


def _setup(settings: Settings, folder: Path, guarantee: str, commit_interval: float) -> Setup:
    return Setup(
        settings.brokers, settings.app_id, settings.sources[0], settings.recommendations_topic, str(folder / "data"),
        settings.partitions, guarantee, settings.session_timeout, settings.heartbeat_interval, commit_interval,
    )  # fmt: skip


def _read(settings: Settings, changelog: str, user_of: UserOf) -> Callable[[dict[str, int]], Verdict]:
    def judged(sent: dict[str, int]) -> Verdict:
        return verdict_of(sent, states(settings, changelog, user_of), outputs(settings, settings.recommendations_topic))

    return judged


class Numbered(Events):
    """Clicks that are numbered per user from 0, at the end of their id; all must be acknowledged."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__(settings, seed=plan.seed, users=plan.users)
        self.counts: Counter[str] = Counter()
        self._sends: list[Any] = []

    def put(self, topic: str, message: dict[str, Any], headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        user = message["user"]
        sent = super().put(topic, message | {"id": f"{user}-{self.counts[user]}"}, headers)
        self._sends.append(sent)
        self.counts[user] += 1
        return sent

    def one(self, user: str | None = None, kind: str | None = None, **fields: Any) -> tuple[str, dict[str, Any]]:
        return super().one(user, "click", **fields)

    def acknowledged(self) -> dict[str, int]:
        """user -> events. Raises AssertionError where one was not acknowledged: then nobody knows what is due."""
        self.producer.flush()
        assert all(send.succeeded() for send in self._sends)
        return dict(self.counts)


class Supervisor:
    """Starts the subject again whenever it is gone."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.exits = 0

    def look(self) -> None:
        if self.subject.process.poll() is not None:
            self.exits += 1
            self.subject.start()

    def kill(self, wipe: bool) -> None:
        self.look()
        self.subject.kill()
        if wipe:
            shutil.rmtree(self.subject.data_dir, ignore_errors=True)
        self.subject.start()


def run(settings: Settings, contender: Contender, plan: Plan) -> Rival:
    """One subject under the kills of one seed."""
    began = time.monotonic()
    draw = random.Random(plan.seed)
    wiped = set(draw.sample(range(plan.kills), plan.wipes))
    gaps = [draw.uniform(*plan.gap) for _ in range(plan.kills)]
    last = draw.uniform(*plan.gap)
    supervisor = Supervisor(contender.subject)
    events = Numbered(settings, plan)
    progress = Progress(settings, settings.app_id, settings.sources[0])
    try:
        events.send_items()
        contender.subject.start()
        events.put(*events.one())
        events.producer.flush()
        answered = partial(_answered, supervisor, progress, settings.recommendations_topic)
        until(answered, 60, f"{contender.name} answers")
        over = threading.Event()
        sender = threading.Thread(target=events.send, args=(10_000_000, plan.rate, over.is_set))
        at = time.monotonic()
        sender.start()
        try:
            for number, gap in enumerate(gaps):
                at += gap
                _watch(supervisor, at)
                supervisor.kill(wipe=number in wiped)
            _watch(supervisor, at + last)
        finally:
            over.set()
            sender.join()
        sent = events.acknowledged()
        caught_up = _catch_up(supervisor, progress, settings, contender.changelog, plan.catch_up)
        verdict = contender.judged(sent)
    finally:
        contender.subject.close()
        events.close()
        progress.close()
    return Rival(
        contender.name, contender.version, contender.description, plan.seed, sum(sent.values()), plan.kills, plan.wipes,
        supervisor.exits, verdict.lost, verdict.double, verdict.unshown, len(sent), verdict.users_wrong, caught_up,
        round(time.monotonic() - began, 1),
    )  # fmt: skip


def _answered(supervisor: Supervisor, progress: Progress, output: str) -> bool:
    """The first event is committed and something was put out."""
    supervisor.look()
    return progress.caught_up() and any(progress.ends(output).values())


def _watch(supervisor: Supervisor, until_then: float) -> None:
    """Until the fault's own instant, nothing is waited for."""
    while (left := until_then - time.monotonic()) > 0:
        supervisor.look()
        time.sleep(min(left, 0.1))


def _catch_up(supervisor: Supervisor, progress: Progress, settings: Settings, changelog: str, within: float) -> float:
    """Seconds until everything was committed and no transaction open, -1 where that did not come within so many."""
    began = time.monotonic()
    quiet_since = began
    ends: dict[Any, int] = {}
    caught_up = -1.0
    while time.monotonic() - began < within:
        supervisor.look()
        if (now := progress.ends(changelog)) != ends:
            ends, quiet_since = now, time.monotonic()
        if not progress.caught_up():
            quiet_since, caught_up = time.monotonic(), -1.0
        elif caught_up < 0:
            caught_up = round(time.monotonic() - began, 1)
        if time.monotonic() - quiet_since > QUIET and progress.closed(changelog, settings.recommendations_topic):
            return caught_up
        time.sleep(0.1)
    return -1.0
