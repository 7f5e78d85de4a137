"""The `freshet` command. deploy/cli/commands holds one module per command or group; each imports what it needs late.

Exit codes: 0 done, 1 a check failed, 2 wrong usage, 3 cannot be checked, 70 a bug, 74 a file cannot be used, 130
interrupted. stream.core.errors defines the others, and other causes of 70.
"""

from __future__ import annotations

import errno
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

from deploy.cli import signals
from deploy.cli.usage import Commands
from deploy.clients.printable import printable
from stream.core.errors import DataError, FreshetError, SettingsError
from stream.observability import logs

log = logging.getLogger("freshet.fatal")

INTERRUPTED = 130
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""What a disk says. A write does not name its file."""
COMMANDS = (
    "broker",
    "topics",
    "worker",
    "serve",
    "capture",
    "tally",
    "train",
    "learn",
    "read_ratings",
    "export",
    "bundles",
    "evaluate",
    "replay",
    "send",
    "recommendations",
    "explain",
    "forget",
    "rules",
    "verify",
    "deadletters",
    "alerts",
    "demo",
)

SERVING = {"worker": "worker", "serve": "gateway", "tally": "tally", "learn": "learner"}
"""Command -> the process that it runs, whose log is JSON and whose last line says why it ended."""

app = typer.Typer(
    name="freshet",
    cls=Commands,
    help="A real-time streaming recommender: Kafka events in, interest states in RocksDB, ONNX-scored slates out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they print local variables, including secrets
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(version("freshet"))
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Read settings from this TOML file.", envvar="FRESHET_CONFIG")
    ] = None,
    brokers: Annotated[str | None, typer.Option(help="Kafka brokers to connect to: host:port[,host:port...].")] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of every topic name.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Set any setting: name=value. May be repeated.")
    ] = None,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A real-time streaming recommender: Kafka events in, interest states in RocksDB, ONNX-scored slates out."""
    if context.invoked_subcommand in SERVING:
        logs.configure()  # its log is JSON from the first line on, even if the settings are wrong
    else:
        signals.release()
    from stream.settings.settings import SECRETS, expected_json, load

    if config is not None and not config.is_file():
        raise SettingsError(f"config: {config} is not a file")
    values: dict[str, Any] = {
        name: value for name, value in (("brokers", brokers), ("prefix", prefix)) if value is not None
    }
    for pair in assign or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError("--set: expected name=value")
        if name in SECRETS:
            raise SettingsError(
                f"{name}: must not be on the command line, where others can see it: use FRESHET_SECRETS"
            )
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
    """Run the command. A FreshetError prints one line on standard error and sets the exit code, never a traceback."""
    for argument in sys.argv[1:]:
        if not _is_text(argument):
            print(f"freshet: {printable(argument)}: expected UTF-8", file=sys.stderr)
            sys.exit(2)
    try:
        app()
    except FreshetError as error:
        _end(error, error.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # typer raises it for a KeyboardInterrupt
            signals.ending()
            print(signals.SAID, file=sys.stderr)
        raise
    except KeyboardInterrupt:
        signals.ending()
        print(signals.SAID, file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.filename is None and error.errno not in DISK:
            _end_as_bug(error)
        _end(FreshetError(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)), 74)
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "")
        if not extra:
            _end_as_bug(error)
        _end(FreshetError(f"{error.name} is not installed: pip install '.[{extra}]' in freshet's folder"), 69)
    except Exception as error:
        if _has_interrupt(error):
            signals.ending()
            print(signals.SAID, file=sys.stderr)
            sys.exit(INTERRUPTED)
        _end_as_bug(error)


def _has_interrupt(error: BaseException | None) -> bool:
    """Return whether Ctrl-C is the cause of an error: Python raises another one if it comes while a class is made."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_text(argument: str) -> bool:
    """Return whether an argument is valid UTF-8.

    Python decodes bytes that are not UTF-8 to lone surrogates. No id and no name of freshet's contains one.
    """
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _extra_with(module: str) -> str:
    """Return the extra of freshet that installs a module, or "" if none does."""
    package = module.split(".")[0].replace("_", "-")
    for needed in requires("freshet") or ():
        requirement, marked, extra = needed.partition("extra ==")
        if marked and re.split(r"[^A-Za-z0-9.-]", requirement.replace("_", "-"), maxsplit=1)[0] == package:
            return extra.strip(" \"')")
    return ""


def _end(error: FreshetError, code: int) -> NoReturn:
    """Print the error on standard error and exit: one log line for the worker, plain text for any other command."""
    if code == INTERRUPTED:
        signals.ending()
    if logs.configured():
        from stream.process import fatal

        if fatal.prepared():
            fatal.leave(code, f"{fatal.process()} stops: {fatal.one_line(fatal.meaning(error))}")
        log.critical("%s stops: %s", _process(), fatal.one_line(error))
    else:
        first, *more = map(printable, map(str, error.args)) if isinstance(error, DataError) else [printable(str(error))]
        for line in (f"freshet: {first}", *(f"  {line}" for line in more)):
            print(_broken(line), file=sys.stderr)
    sys.exit(code)


def _process() -> str:
    """Return which process the command runs."""
    return next((SERVING[argument] for argument in sys.argv[1:] if argument in SERVING), "worker")


def _broken(line: str) -> str:
    """Wrap the line to the terminal's width if standard error is a terminal. Words, paths and names are not split."""
    width = shutil.get_terminal_size().columns
    if not sys.stderr.isatty() or len(line) <= width:
        return line
    indent = "  " if line[0] != " " else "    "
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _end_as_bug(error: Exception) -> NoReturn:
    """Show the traceback and exit with 70. Python's default of 1 would look like a failed check."""
    if logs.configured():
        from stream.process import fatal

        if fatal.prepared():
            fatal.fatal(error)
        log.critical("%s stops: %s", _process(), fatal.one_line(error), exc_info=error)
    else:
        traceback.print_exception(error)
    sys.exit(70)


if __name__ == "__main__":
    main()
