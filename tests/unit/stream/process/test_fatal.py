"""What a Kafka client's error means to whoever runs the worker."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaConnectionError, TopicAuthorizationFailedError

from stream.core.errors import BrokerError, DiskError, FreshetError, LossError
from stream.process.fatal import meaning, one_line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KafkaConnectionError("Unable to bootstrap from [x]"), "no Kafka broker answers"),
        (TopicAuthorizationFailedError("clicks"), "denies access"),
    ],
)
def test_a_broker_that_is_away_or_refuses_is_a_broker_error(error: Exception, message: str) -> None:
    meant = meaning(error)
    assert isinstance(meant, BrokerError)
    assert message in str(meant)


@pytest.mark.parametrize("error", [LossError("gone"), KeyError(3), KeyboardInterrupt()])
def test_every_other_error_is_itself(error: BaseException) -> None:
    assert meaning(error) is error


def test_an_error_without_a_text_is_told_by_its_type_and_place() -> None:
    def deep() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError) as raised:
        deep()
    assert re.fullmatch(r"TimeoutError in deep, test_fatal.py line \d+", one_line(raised.value))
    assert one_line(KeyError("user")) == "KeyError: 'user'"
    assert one_line(LossError("gone")) == "gone"


def test_a_refused_timestamp_names_the_clock() -> None:
    meant = meaning(InvalidTimestampError())
    assert isinstance(meant, BrokerError)
    assert "clock" in str(meant)


def test_descriptors_that_run_out_are_named_whoever_says_it() -> None:
    text = "partition 0 of the table cannot be used: IO error: While open a file for appending: 000010.log: Too many open files"
    assert one_line(meaning(DiskError(text))).startswith("too many open files (this process may have ")
    full = DiskError("partition 0 of the table cannot be used: IO error: No space left on device")
    assert meaning(full) is full


def test_memory_that_runs_out_is_named() -> None:
    assert one_line(meaning(MemoryError())).startswith("out of memory: ")
    assert one_line(meaning(RuntimeError("Failed to allocate memory for requested buffer"))).startswith(
        "out of memory: "
    )
    assert one_line(meaning(RuntimeError("CUDA failure 700: an illegal memory access"))).startswith(
        "the accelerator fails: "
    )
    assert one_line(meaning(RuntimeError("CUDA failure 2: out of memory"))).startswith("the GPU is out of memory: ")
    known = FreshetError("the CUDA failure of before")
    assert meaning(known) is known


HEAD = """
from stream.core import errors
from stream.observability import logs
from stream.process import fatal
logs.configure()
fatal.prepare()
"""


def ends(code: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code as a worker would run it, with its log and its way out."""
    return subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def test_descriptors_that_run_out_are_no_broker_that_is_away() -> None:
    done = ends("""
        import resource
        from aiokafka.errors import KafkaConnectionError
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        fatal.fatal(KafkaConnectionError("Unable to bootstrap"))
    """)
    assert done.returncode == 70
    assert "too many open files (this process may have 3)" in json.loads(done.stderr)["message"]


def test_a_bug_is_logged_with_its_traceback_and_a_known_error_without() -> None:
    for error, traced in (("InternalError", True), ("LossError", False)):
        done = ends(f"""
            try:
                raise errors.{error}("not open here")
            except errors.FreshetError as error:
                fatal.fatal(error)
        """)
        line = json.loads(done.stderr)
        assert line["message"] == "worker stops: not open here"
        assert ("Traceback" in line.get("exception", "")) is traced


def test_nothing_is_said_after_the_last_line() -> None:
    done = ends("""
        class Client:
            def __del__(self):
                print("Unclosed AIOKafkaConsumer", flush=True)
        client = Client()
        fatal.fatal(errors.LossError("gone"))
    """)
    assert done.returncode == 76
    assert json.loads(done.stderr)["message"] == "worker stops: gone"
    assert done.stdout == ""


@pytest.mark.parametrize("held", ["a pipe that nobody reads", "a lock that another thread holds"])
def test_a_line_that_cannot_be_written_does_not_hold_the_end_back(held: str) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while held.startswith("a pipe"):
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    lock = "import logging, threading; threading.Thread(target=logging.getLogger().handlers[0].acquire).start()\n"
    code = HEAD
    code += (lock if held.startswith("a lock") else "") + 'fatal.fatal(errors.LossError("gone"))\n'
    began = time.monotonic()
    try:
        child = subprocess.Popen([sys.executable, "-c", code], stderr=writer)
        assert child.wait(60) == 76
    finally:
        os.close(reader)
        os.close(writer)
    assert time.monotonic() - began < 30
