"""The startup cache is made once, by one process, and no broker depends on it."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.embedded_kafka import startup_cache
from stream.core.errors import BrokerError


def options(jars: list[Path], train: Callable[[Path], None]) -> tuple[str, ...]:
    return startup_cache.options(jars, train, lambda text: None)


@pytest.fixture
def jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path))
    jar = tmp_path / "kafka.jar"
    jar.write_bytes(b"jar")
    return [jar]


def writes(output: Path) -> None:
    output.write_bytes(b"cache")
    output.with_name(output.name + ".config").write_bytes(b"left over")


def never(output: Path) -> None:
    raise AssertionError(f"trained for {output}")


def test_the_cache_is_made_once(jars: list[Path]) -> None:
    first = options(jars, writes)
    file = startup_cache.path(jars)
    assert first[0] == f"-XX:AOTCache={file}"
    assert file.read_bytes() == b"cache"
    assert options(jars, never) == first
    assert {one.name for one in file.parent.iterdir()} == {"kafka.jar", file.name, startup_cache.LOCK}


def test_other_jars_have_another_cache(jars: list[Path]) -> None:
    before = startup_cache.path(jars)
    jars[0].write_bytes(b"another jar")
    assert startup_cache.path(jars) != before


def test_nobody_waits_for_the_process_that_makes_it(jars: list[Path]) -> None:
    with (jars[0].parent / startup_cache.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert options(jars, never) == ()


def dies(output: Path) -> None:
    output.write_bytes(b"half")
    raise BrokerError("the broker died during startup")


def full(output: Path) -> None:
    raise OSError(28, "No space left on device")


def writes_nothing(output: Path) -> None:
    return


@pytest.mark.parametrize("train", [dies, full, writes_nothing])
def test_a_failed_training_run_is_logged_and_not_repeated(
    jars: list[Path], caplog: pytest.LogCaptureFixture, train: Callable[[Path], None]
) -> None:
    with caplog.at_level(logging.WARNING):
        assert options(jars, train) == ()
    assert caplog.records[-1].message.startswith("Kafka starts without a cache, more slowly: ")
    failed = startup_cache.path(jars).with_suffix(".failed")
    assert failed.read_text().strip() in caplog.records[-1].message
    assert options(jars, never) == ()
    failed.unlink()
    assert options(jars, writes) != ()


def stopped(output: Path) -> None:
    output.write_bytes(b"half")
    raise KeyboardInterrupt


def test_an_interrupted_training_run_leaves_nothing_and_is_done_again(jars: list[Path]) -> None:
    with pytest.raises(KeyboardInterrupt):
        options(jars, stopped)
    assert not list(jars[0].parent.glob("*.half"))
    assert options(jars, writes) != ()


def test_who_waits_for_it_is_told(jars: list[Path]) -> None:
    notes: list[str] = []
    startup_cache.options(jars, writes, notes.append)
    startup_cache.options(jars, writes, notes.append)
    assert notes == ["preparing faster starts of Kafka, once for this machine"]
