"""Whoever waits for a broker is told what is waited for, and for how long."""

from __future__ import annotations

import threading
import time
import types
from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError
from kafka.net.selector import NetworkSelector

from deploy.clients import connect
from stream.core.errors import BrokerError, BundleError
from stream.inference.bundle import current
from stream.settings import load

SLOW = 0.01
WAITS = "freshet: waiting for a Kafka broker at 127.0.0.1:1, up to {} s\n"


def refuse(wait: int) -> None:
    time.sleep(0.02)
    raise KafkaConnectionError


@pytest.mark.parametrize(("seconds", "message"), [(0.1, WAITS.format(0.1)), (0.005, "")])
def test_it_is_said_soon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, message: str
) -> None:
    monkeypatch.setattr(connect, "SILENT", 0.01)
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        connect.connect(load(brokers="127.0.0.1:1", startup_timeout=seconds), refuse)
    assert capsys.readouterr().err == message


def test_two_clients_that_wait_for_one_broker_say_it_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`freshet send click` makes two, its producer and the reader of `items`."""
    monkeypatch.setattr(connect, "SILENT", 0.01)
    settings = load(brokers="127.0.0.1:1", startup_timeout=0.2)

    def wait() -> None:
        with pytest.raises(BrokerError):
            connect.connect(settings, refuse)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capsys.readouterr().err == WAITS.format(0.2)
    wait()
    assert capsys.readouterr().err == WAITS.format(0.2)  # once for each time that it is waited for


def test_no_try_lasts_beyond_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], list[int]()

    def unreachable(wait: int) -> None:
        waits.append(wait)
        now[0] += wait / 1000
        raise KafkaConnectionError

    def pause(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(connect, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=pause))
    with pytest.raises(BrokerError):
        connect.connect(load(brokers="127.0.0.1:1", startup_timeout=30), unreachable)
    assert waits[:3] == [2000, 4000, 8000]
    assert 30 <= now[0] <= 31


def test_a_busy_machine_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """kafka-python's loop takes each wait for the processor for a fault of ours, in the log of every worker and command."""

    async def busy() -> None:
        time.sleep(2 * SLOW)  # noqa: ASYNC251

    NetworkSelector(slow_task_threshold_secs=SLOW).run(busy())
    assert caplog.records == []


def test_nothing_is_said_where_a_broker_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connect, "SILENT", 0.05)
    assert connect.connect(load(), lambda wait: "client") == "client"
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("named", ["freshet.toml", "other.toml", ""])
def test_it_is_said_which_settings_file_was_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str) -> None:
    """A command that is run in another folder finds no freshet.toml there, and asks the default broker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FRESHET_CONFIG", raising=False)
    if named:
        (tmp_path / named).write_text('brokers = "127.0.0.1:1"\nstartup_timeout = 0.005\n')
    if named == "other.toml":
        monkeypatch.setenv("FRESHET_CONFIG", named)
    message = f"settings file: {tmp_path / named}" if named else f"no freshet.toml was found in {tmp_path}"
    with pytest.raises(BrokerError) as error:
        connect.connect(load(startup_timeout=0.005), refuse)
    assert message in str(error.value)
    with pytest.raises(BundleError) as missing:
        current(Path("bundles"))
    assert f"bundles: {tmp_path / 'bundles' / 'CURRENT'} does not exist" in str(missing.value)
    assert message in str(missing.value)
