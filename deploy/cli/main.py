"""The `freshet` command. Its parts lie in deploy/cli/commands, one module a command or group; each imports what it needs late.

Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 cannot be judged, 74 a file cannot be used, 130 interrupted, the
others as stream.core.errors says; 70 for a bug, too.
"""

from __future__ import annotations

from deploy.cli import signals  # isort: skip  # first: Ctrl-C may come while the others are imported
import json
import logging
import os
import re
import shutil
import sys
import textwrap
import traceback
from importlib import import_module
from importlib.metadata import requires, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from deploy.cli.usage import Commands
from deploy.clients.printable import printable
from stream.core.errors import FreshetError, SettingsError
from stream.observability import logs

log = logging.getLogger("freshet.fatal")

INTERRUPTED = 130
COMMANDS = (
    "broker",
    "topics",
    "worker",
    "train",
    "read_ratings",
    "export",
    "evaluate",
    "replay",
    "send",
    "recommendations",
    "verify",
    "deadletters",
    "alerts",
    "demo",
)

app = typer.Typer(
    name="freshet",
    cls=Commands,
    help="A real-time streaming recommender: Kafka events in, interest states in RocksDB, ONNX-scored slates out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, secrets among them
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(version("freshet"))
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.", envvar="FRESHET_CONFIG")] = None,
    brokers: Annotated[str | None, typer.Option(help="host:port[,host:port...] of the Kafka brokers.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Put before every topic name.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of any setting; may be repeated.")
    ] = None,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A real-time streaming recommender: Kafka events in, interest states in RocksDB, ONNX-scored slates out."""
    if context.invoked_subcommand == "worker":
        logs.configure()  # its log is JSON from the first line on, also where the settings are wrong
    else:
        signals.release()
    from stream.settings.settings import SECRETS, expected_json, load

    if config is not None and not config.is_file():
        raise SettingsError(f"config: {config} is no file")
    values: dict[str, Any] = {
        name: value for name, value in (("brokers", brokers), ("prefix", prefix)) if value is not None
    }
    for pair in assign or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError("--set: expected name=value")
        if name in SECRETS:
            raise SettingsError(f"{name}: not on a command line, where others see it: use FRESHET_SECRETS")
        try:
            values[name] = json.loads(value) if value.startswith("[") else value
        except ValueError:
            raise SettingsError(f"{name}: {expected_json(name)}") from None
    if config is not None:
        os.environ["FRESHET_CONFIG"] = str(config)
    context.obj = load(**values)


for _name in COMMANDS:
    import_module(f"deploy.cli.commands.{_name}").register(app)


def main() -> None:
    """Run the command; a FreshetError is one line on standard error and its exit code, never a traceback."""
    for argument in sys.argv[1:]:
        if not _is_text(argument):
            print(f"freshet: {printable(argument)}: expected UTF-8", file=sys.stderr)
            sys.exit(2)
    try:
        app()
    except FreshetError as error:
        _end(error, error.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer's, of a KeyboardInterrupt
            signals.ending()
            print(signals.SAID, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        signals.ending()
        print(signals.SAID, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.filename is None:
            _end_as_bug(error)
        _end(FreshetError(f"{error.strerror}: {error.filename}"), 74)
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "")
        if not extra:
            _end_as_bug(error)
        _end(FreshetError(f"{error.name} is not installed: pip install '.[{extra}]' in freshet's folder"), 69)
    except Exception as error:
        _end_as_bug(error)


def _is_text(argument: str) -> bool:
    """Python reads bytes that are no UTF-8 as lone surrogates; there is no id, and no name of ours, with one."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _extra_with(module: str) -> str:
    """Which extra of ours brings a module; empty where none does."""
    package = module.split(".")[0].replace("_", "-")
    for needed in requires("freshet") or ():
        requirement, marked, extra = needed.partition("extra ==")
        if marked and re.split(r"[^A-Za-z0-9.-]", requirement.replace("_", "-"), maxsplit=1)[0] == package:
            return extra.strip(" \"')")
    return ""


def _end(error: FreshetError, code: int) -> NoReturn:
    """One line on standard error, of the log where the command has one (the worker), else for people; and the end."""
    if code == INTERRUPTED:
        signals.ending()
    if logs.configured():
        from stream.process import fatal

        if fatal.prepared():
            fatal.leave(code, f"worker stops: {fatal.said(fatal.meaning(error))}")
        log.critical("worker stops: %s", fatal.said(error))
    else:
        print(_broken(f"freshet: {printable(str(error))}"), file=sys.stderr)
    sys.exit(code)


def _broken(line: str) -> str:
    """The line, broken to the width of the terminal where standard error is one; words, paths and names stay whole."""
    width = shutil.get_terminal_size().columns
    if not sys.stderr.isatty() or len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _end_as_bug(error: Exception) -> NoReturn:
    """Show the traceback and end with 70; Python's own 1 would read as a failed check."""
    if logs.configured():
        from stream.process import fatal

        if fatal.prepared():
            fatal.fatal(error)
        log.critical("worker stops: %s", fatal.said(error), exc_info=error)
    else:
        traceback.print_exception(error)
    sys.exit(70)


if __name__ == "__main__":
    main()
