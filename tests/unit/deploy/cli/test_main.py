"""The `freshet` command itself: everything is documented, nothing heavy is imported early, errors are one line and a code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import deploy.cli.main
from stream.core import errors


def walk(command: Any, name: tuple[str, ...] = ("freshet",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield name, command
    for part, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*name, part))


COMMANDS = dict(walk(typer.main.get_command(deploy.cli.main.app)))


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(name: tuple[str, ...]) -> None:
    command = COMMANDS[name]
    assert command.help
    assert [one.name for one in command.params if one.name != "help" and not getattr(one, "help", None)] == []


def test_every_command_module_is_named_and_registered() -> None:
    folder = Path(deploy.cli.main.__file__).with_name("commands")
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert modules == set(deploy.cli.main.COMMANDS)
    assert {name[1].replace("-", "_") for name in COMMANDS if len(name) == 2} == modules


def test_the_command_starts_without_its_heavy_parts() -> None:
    heavy = ("torch", "transformers", "onnxruntime", "faust", "kafka", "polars", "rocksdict", "jgo")
    code = f"import sys, deploy.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(freshet: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = freshet("--version")
    assert code == 0
    assert out.strip().count(".") == 2


def test_no_command_shows_the_help(freshet: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = freshet()
    assert code == 2
    assert "worker" in out + err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--set", "partitions=0"), "partitions"),
        (("--set", "partitions"), "expected name=value"),
        (("--set", "no_such_setting=1"), "no_such_setting"),
        (("--set", "rating_scale=[5"), "rating_scale"),
        (("--prefix", "white space"), "prefix"),
        (("--brokers", ""), "brokers"),
        (("--brokers", "kafka:none"), "brokers"),
        (("--config", "/no/such/file.toml"), "/no/such/file.toml"),
        (("--set", "heartbeat_interval=9"), "heartbeat_interval"),
    ],
)
def test_a_wrong_setting_is_one_line_and_78(
    freshet: Callable[..., tuple[int, str, str]], words: tuple[str, ...], named: str
) -> None:
    code, out, err = freshet(*words, "topics", "check")
    assert code == 78
    assert out == ""
    assert err.startswith("freshet: ")
    assert err.count("\n") == 1
    assert named in err


def test_a_wrong_list_in_the_environment_is_78(
    freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRESHET_RATING_SCALE", "[5")
    code, _, err = freshet("topics", "check")
    assert code == 78
    assert "rating_scale" in err
    assert err.count("\n") == 1


def test_a_configuration_file_that_is_not_toml_is_78(
    freshet: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "freshet.toml"
    file.write_text("partitions = = 3")
    code, _, err = freshet("--config", str(file), "topics", "check")
    assert code == 78
    assert err.count("\n") == 1


def test_a_secret_is_never_shown(freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHET_SASL_PASSWORD", "open-sesame")
    monkeypatch.setenv("FRESHET_SECURITY_PROTOCOL", "SASL_SSL")
    code, out, err = freshet("topics", "check")  # no user name: refused
    assert code == 78
    assert "open-sesame" not in out + err


@pytest.mark.parametrize(
    "words", [("no-such-command",), ("worker", "--no-such-option"), ("broker", "start", "--port", "x")]
)
def test_wrong_usage_is_2(freshet: Callable[..., tuple[int, str, str]], words: tuple[str, ...]) -> None:
    code, _, err = freshet(*words)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "kind", sorted({errors.FreshetError, *errors.FreshetError.__subclasses__()} - {errors.RecordError}, key=str)
)
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, kind: type[errors.FreshetError]
) -> None:
    def fail(self: object) -> bool:
        raise kind("what is wrong")

    monkeypatch.setattr("deploy.embedded_kafka.EmbeddedKafka.alive", property(fail))
    assert freshet("broker", "status") == (kind.exit_code, "", "freshet: what is wrong\n")


def test_a_file_that_cannot_be_used_is_one_line_and_74(
    freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> bool:
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("deploy.embedded_kafka.EmbeddedKafka.alive", property(fail))
    code, _, err = freshet("broker", "status")
    assert code == 74
    assert err == "freshet: Permission denied: /some/file\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_write_that_a_disk_refuses_is_one_line_and_74(
    freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Python names no file then."""

    def fail(self: object) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("deploy.embedded_kafka.EmbeddedKafka.alive", property(fail))
    assert freshet("broker", "status") == (74, "", f"freshet: {os.strerror(number)}\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--days", "3"), "--days and --replay need --from RUN"),
        (("--replay", "1"), "--days and --replay need --from RUN"),
        (("--update", "head"), "--update head needs --from RUN"),
        (("--from", "run/../run"), "it would replace the run that --from names"),
    ],
)
def test_options_of_train_that_contradict_each_other_are_refused(
    freshet: Callable[..., tuple[int, str, str]], words: tuple[str, ...], said: str
) -> None:
    code, _, err = freshet("train", "data", "--out", "run", *words)
    assert code == 2
    assert said in " ".join(err.replace("│", " ").split())


def test_an_unforeseen_error_is_70_and_not_taken_for_a_failed_check(
    freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object) -> bool:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("deploy.embedded_kafka.EmbeddedKafka.alive", property(fail))
    code, _, err = freshet("broker", "status")
    assert code == 70
    assert err.endswith("ZeroDivisionError: a bug\n")  # its traceback is wanted: it is a bug


def test_interrupted_is_130(freshet: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a background shell starts the tests with it ignored
    monkeypatch.setattr(
        "deploy.embedded_kafka.EmbeddedKafka.alive", property(lambda self: os.kill(os.getpid(), signal.SIGINT))
    )
    try:
        code, _, err = freshet("broker", "status")
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert "Traceback" not in err
