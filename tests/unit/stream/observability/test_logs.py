"""Log lines: one valid JSON object an event, whatever it holds."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from stream.observability import logs

HOSTILE = [
    "a\nb",
    "\r\n{}",
    '{"level": "FATAL"}',
    "\x1b[31mred\x1b[0m",
    "\x00\x07\x7f\x9b",
    "\u2028\u2029",
    "\udc80",
    "%s%d",
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in logs.QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_one_line_has_time_level_logger_message_and_fields() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    logging.getLogger("stream.worker").info("recovered %d", 5, extra={"records": 5, "topic": "clicks"})
    (line,) = lines(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line.pop("time")))
    assert line == {
        "level": "INFO", "logger": "stream.worker", "message": "recovered 5", "records": 5, "topic": "clicks",
    }  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_line_of_ascii(text: str) -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    logging.getLogger("x").warning("%s", text, extra={"user": text, "nested": {"item": text}})
    (line,) = lines(out)
    assert (line["message"], line["user"], line["nested"]) == (text, text, {"item": text})
    assert all(32 <= ord(char) < 127 for char in out.getvalue()[:-1])


def test_an_exception_is_a_field() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = lines(out)
    assert str(line["exception"]).endswith("ValueError: bad\nvalue")


@pytest.mark.parametrize(
    ("logger", "error", "whole"),
    [
        ("kafka.net.transport", ConnectionResetError(104, "Connection reset by peer"), False),
        ("aiokafka.conn", BrokenPipeError(32, "Broken pipe"), False),
        ("aiokafka.consumer.fetcher", ValueError("a bug"), True),
        ("freshet.worker", ConnectionResetError(104, "Connection reset by peer"), True),
    ],
)
def test_a_connection_that_a_client_has_lost_is_one_sentence(logger: str, error: Exception, whole: bool) -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    try:
        raise error
    except type(error):
        logging.getLogger(logger).exception("%s: 100 %% lost", "a connection")
    (line,) = lines(out)
    assert ("exception" in line) is whole
    assert line["message"] == "a connection: 100 % lost" + ("" if whole else f": {error}")


def test_fields_cannot_pretend_to_be_the_frame() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    logging.getLogger("x").info("m", extra={"level": "FATAL", "time": 0, "logger": "y", "exception": "z"})
    (line,) = lines(out)
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "x", "m")
    assert "exception" not in line


def test_what_json_cannot_hold_is_written_as_text() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    logging.getLogger("x").info("m", extra={"key": b"\xff", "kind": {1, 2}})
    (line,) = lines(out)
    assert line["key"] == "b'\\xff'"


def test_a_terminal_gets_text_without_control_characters() -> None:
    out = Terminal()
    logs.configure("INFO", out)
    logging.getLogger("x").warning("a\x1b[31m\nb", extra={"user": "u\r"})
    (line,) = out.getvalue().splitlines()
    assert line.endswith("WARNING a\\x1b[31m\\nb user=u\\r")


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_libraries_stay_quiet(level: str) -> None:
    out = io.StringIO()
    logs.configure(level, out)
    for name in ("aiokafka.conn", "faust.app", "mode.worker", "kafka.client", "onnx_ir.passes", "onnxscript.rewriter"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).error("trouble")
    logging.getLogger("stream.pipeline.pipeline").debug("ours")
    assert [line["message"] for line in lines(out)].count("trouble") == 6
    assert not [line for line in lines(out) if line["message"] == "chatter"]
    assert ("ours" in out.getvalue()) is (level == "DEBUG")


def test_configure_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("INFO", first)
    logs.configure("ERROR", second)
    logging.getLogger("x").error("one")
    logging.getLogger("x").warning("two")
    assert first.getvalue() == ""
    assert [line["message"] for line in lines(second)] == ["one"]


def test_python_warnings_are_log_lines() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nthing", UserWarning, stacklevel=1)
    logging.captureWarnings(False)
    assert lines(out)[0]["logger"] == "py.warnings"


def test_what_nobody_catches_is_a_log_line() -> None:
    out = io.StringIO()
    logs.configure("INFO", out)
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()

    class Unruly:
        def __del__(self) -> None:
            raise ValueError("bad\nend")

    Unruly()
    try:
        raise KeyError("last")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    found = lines(out)
    assert [str(line["message"]).split(":")[0] for line in found] == [
        "uncaught ZeroDivisionError", "uncaught ValueError", "uncaught KeyError",
    ]  # fmt: skip
    assert all("Traceback" in str(line["exception"]) for line in found)


def test_what_a_library_repeats_is_one_line_with_a_count() -> None:
    now = [0.0]
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logs.JsonFormatter())
    handler.addFilter(logs.Repeats(10.0, lambda: now[0]))

    def say(name: str, text: str, *values: object) -> None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, text, values, None)
        if handler.filter(record):
            handler.emit(record)

    for node in range(745):
        now[0] += 1 / 32
        say("aiokafka", "Unable connect to node with id %s", node)
        say("freshet.worker", "ours %s", node)
    say("aiokafka", "another %s", 1)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    theirs = [line for line in lines if line["logger"] == "aiokafka"]
    assert [(line["message"], line.get("repeated")) for line in theirs] == [
        ("Unable connect to node with id 0", None), ("Unable connect to node with id 320", 319),
        ("Unable connect to node with id 640", 319), ("another 1", None),
    ]  # fmt: skip
    assert len(lines) == 745 + 4
