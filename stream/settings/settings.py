"""All settings of freshet in one frozen object, validated once and passed in.

Sources, the strongest first: values given in code (the command's flags), the environment (`FRESHET_BROKERS=...`), a TOML
file (`FRESHET_CONFIG`, or `freshet.toml` where the command is run), the defaults below. Secrets come from the environment
or from a file of `secrets_dir` (`FRESHET_SECRETS`), never from a flag.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as UnreadableError,
)

from stream.core import times
from stream.core.errors import SettingsError
from stream.core.messages import SOURCE_TOPICS
from stream.settings import addresses, toml_file

SLACK = 10.0  # seconds beside a commit's own, for a client that sends it again
MAX_FILE = 1 << 20  # bytes of a file of settings, or of one secret
MOST_RATING = 1e9  # by the schemas
SECRETS = ("sasl_password", "ssl_keypassword")
"""Never on a command line, where every user of the machine can read them; never shown."""
OTHERS = {"FRESHET_CONFIG", "FRESHET_SECRETS", "FRESHET_DATA"}
"""Variables that are no settings."""
KUBERNETES = re.compile(
    r"FRESHET_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)
"""Kubernetes sets them in every pod, where a service is called freshet or freshet-something."""

GONE = {
    "comment_tokens": "there is no such setting any more: it changed nothing. The bundle says how many tokens of a text "
    "are read, as in training (dims.max_tokens of its manifest.json); leave it out"
}
"""Settings of former versions, and what to do where one is still given."""


class Settings(BaseSettings):
    """Every field is also an environment variable: FRESHET_ and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FRESHET_", frozen=True, extra="forbid")

    # Kafka
    brokers: str = Field("127.0.0.1:9092", description="host:port[,host:port...] of the Kafka brokers")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="with the SASL protocols"
    )
    sasl_username: str = Field("", description="with PLAIN and SCRAM")
    sasl_password: SecretStr = Field(SecretStr(""), description="from the environment or a file of FRESHET_SECRETS")
    sasl_token_file: Path | None = Field(
        None, description="file of the bearer token, with OAUTHBEARER; read again for each connection"
    )
    ssl_cafile: Path | None = Field(None, description="PEM file of the authorities to trust; empty: the system's")
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key")
    ssl_keypassword: SecretStr = Field(SecretStr(""), description="of ssl_keyfile; from where sasl_password comes from")
    app_id: str = Field("freshet", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="consumer group, changelog prefix")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="put before every topic name")
    partitions: int = Field(4, ge=1, le=10_000, description="of clicks, ratings, comments (topics create)")
    replication: int = Field(
        0, ge=0, le=9, description="copies of every topic (topics create); 0: the cluster's default.replication.factor"
    )
    session_timeout: float = Field(10.0, ge=1, le=300, description="seconds without heartbeat until the group moves on")
    heartbeat_interval: float = Field(1.0, gt=0, le=60, description="seconds; at most a third of session_timeout")
    rebalance_timeout: float = Field(
        30.0,
        ge=1,
        le=600,
        description="seconds that a rebalance may take; at least heartbeat_interval and inference_timeout together",
    )
    commit_interval: float = Field(0.5, gt=0, le=60, description="seconds between two offset commits")
    startup_timeout: float = Field(30.0, ge=0, le=3600, description="seconds to wait for a broker at start")
    request_timeout: float = Field(
        30.0,
        ge=1,
        le=600,
        description="seconds until a request counts as failed; not less than session_timeout and rebalance_timeout where it is "
        "given. The group's consumer waits for a second more than these at least, since the group may hold a join for as long",
    )
    stall_timeout: float = Field(
        120.0,
        ge=10,
        le=3600,
        description="seconds for which a worker may have work and not get on, until it ends with 70; "
        "not less than twice session_timeout and rebalance_timeout together, nor than 10 s, request_timeout and twice "
        "commit_interval together, which are taken where they come to more",
    )
    standby_replicas: int = Field(
        0, ge=0, le=8, description="workers that follow each partition's changelog besides its owner"
    )
    accept_loss: bool = Field(False, description="go on although source records were deleted before they were read")

    # state and models
    data_dir: Path = Field(
        Path("data/worker"),
        description="RocksDB of this worker; where no folder is set and this one is taken, `data/worker-2` and so on",
    )
    bundles: Path = Field(Path("bundles"), description="folder with CURRENT and the bundles")
    provider: Literal["cuda", "auto", "cpu"] = Field(
        "auto", description="cuda fails loudly, auto falls back and says so"
    )
    rating_scale: tuple[float, float] = Field(
        (0.5, 5.0),
        description="smallest and largest rating that is accepted, as JSON; a worker takes only those of its bundle's training",
    )
    min_time: str = Field(
        times.MIN_TIME,
        description="events of an older `time` become dead letters: an ISO date, a year (its first day), epoch milliseconds, or "
        "off; [verify](verify.md) must be told of a change",
    )
    slate_size: int = Field(10, ge=1, le=100, description="items of a slate at most")
    filter_seen: bool = Field(True, description="never recommend an item that the user has had")

    # hot path
    micro_batch: int = Field(512, ge=1, le=5000, description="records in one micro-batch at most")
    linger_ms: float = Field(2.0, ge=0, le=1000, description="wait for more records when few have come")
    inference_timeout: float = Field(
        5.0, gt=0, le=60, description="seconds for one call of a model's graph; at most half of session_timeout"
    )
    misplaced: Literal["forward", "dead-letter"] = Field(
        "forward",
        description="what becomes of a record that is good but lies on a wrong partition: it is sent on, or set aside",
    )
    envelope: Literal["none", "connect", "debezium", "cloudevents"] = Field(
        "none",
        description="what the sources' events are wrapped in: none; Kafka Connect's JsonConverter with schemas; Debezium's "
        "change events; CloudEvents in structured mode (messages.md). A record without the envelope is taken as it is",
    )
    key: Literal["utf8", "json", "long"] = Field(
        "utf8",
        description="how a user id is written as the key of its records, in all of freshet's topics that have users as keys: "
        "utf8, its text; json, a JSON string; long, 8 bytes of a whole number ([clients](clients.md#serializers)). It cannot be "
        "changed once there are states",
    )
    comment_cache: int = Field(10_000, ge=0, description="comment vectors kept by text hash")
    held_events: int = Field(
        5_000, ge=1, description="events that may wait behind comments; beyond, comments are not fetched"
    )

    # operations
    web_host: str = Field(
        "127.0.0.1", description="host or address of the health server; 0.0.0.0 (or ::) for all of this machine's"
    )
    web_port: int = Field(9464, ge=0, le=65535, description="/metrics /healthz /readyz; 0: any free port")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="JSON lines on stderr")

    @field_validator("min_time", mode="before")
    @classmethod
    def _min_time(cls, said: object) -> str:
        """A date of TOML and a number are read as their text."""
        text = said.isoformat() if isinstance(said, date) else "" if isinstance(said, bool) else str(said)
        times.parse(text)
        return text

    _brokers = field_validator("brokers")(addresses.brokers)
    _web_host = field_validator("web_host")(addresses.interface)

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if wrong := list(self._contradictions()):
            raise ValueError("; ".join(wrong))
        if self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism == "OAUTHBEARER":
                if self.sasl_token_file is None:
                    raise ValueError("sasl_token_file: expected the file of the token for OAUTHBEARER")
            elif not self.sasl_username:
                raise ValueError(f"sasl_username: expected a user for {self.sasl_mechanism}")
            elif not self.sasl_password.get_secret_value():
                raise ValueError(
                    "sasl_password: expected a password, from FRESHET_SASL_PASSWORD or a file of FRESHET_SECRETS"
                )
        return self

    def _contradictions(self) -> Iterator[str]:
        """Settings that cannot both be meant: which, what was found, what was expected, and what to do."""
        low, high = self.rating_scale
        session, rebalance, request = self.session_timeout, self.rebalance_timeout, self.request_timeout
        heartbeat, inference = self.heartbeat_interval, self.inference_timeout
        found = f"rating_scale: found [{low:g}, {high:g}], expected"
        if not (abs(low) <= MOST_RATING and abs(high) <= MOST_RATING):  # nan is within nothing
            yield f"{found} two numbers within {MOST_RATING:g}: the smallest rating, then the largest"
        elif low >= high:
            cure = "turn the two around" if low > high else "give two different ones"
            yield f"{found} the smallest rating below the largest: {cure}"
        if heartbeat * 3 > session:
            yield (
                f"heartbeat_interval: found {heartbeat:g} s, expected at most a third of session_timeout ({session:g} s): "
                "make it shorter, or session_timeout longer"
            )
        if inference * 2 > session:
            yield (
                f"inference_timeout: found {inference:g} s, expected at most half of session_timeout ({session:g} s): make it "
                "shorter, or session_timeout longer"
            )
        if heartbeat + inference > rebalance:  # a heartbeat says that there is one, and a model call ends first
            yield (
                f"rebalance_timeout: found {rebalance:g} s, expected at least heartbeat_interval ({heartbeat:g} s) and "
                f"inference_timeout ({inference:g} s) together: make it longer, else the group goes on without this worker"
            )
        # where nobody has given it, it follows: see `group_request_timeout`
        for name, held in (("session_timeout", session), ("rebalance_timeout", rebalance)):
            if "request_timeout" in self.model_fields_set and request < held:
                yield (
                    f"request_timeout: found {request:g} s, expected at least {name} ({held:g} s): the group may hold a join for "
                    f"as long as that; leave request_timeout out, make it longer, or {name} shorter"
                )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = toml_file.Source(settings_cls, toml_file=toml_file.path())
        return init_settings, env_settings, file_secret_settings, toml

    # names of topics

    @property
    def sources(self) -> tuple[str, str, str]:
        """The three source topics, in the order of events.BEHAVIOURS."""
        clicks, ratings, comments = SOURCE_TOPICS
        return self.prefix + clicks, self.prefix + ratings, self.prefix + comments

    @property
    def items_topic(self) -> str:
        return self.prefix + "items"

    @property
    def recommendations_topic(self) -> str:
        return self.prefix + "recommendations"

    @property
    def dead_letters_topic(self) -> str:
        return self.prefix + "dead-letters"

    @property
    def changelog_topic(self) -> str:
        """Faust's name of the changelog of the table `interest`."""
        return f"{self.app_id}-interest-changelog"

    @property
    def stall_limit(self) -> float:
        """Seconds for which work may stand: stall_timeout, and never less than a rebalance or a commit may take."""
        rebalance = 2 * (self.session_timeout + self.rebalance_timeout)
        commit = 2 * self.commit_interval + self.group_request_timeout + SLACK
        return max(self.stall_timeout, rebalance, commit)

    @property
    def group_request_timeout(self) -> float:
        """Seconds until a request of the group's consumer counts as failed: the group may hold a join for as long as a session or
        a rebalance lasts, and answers then."""
        return max(self.request_timeout, self.session_timeout + 1, self.rebalance_timeout + 1)

    @property
    def oldest(self) -> int:
        """`min_time` in epoch ms; 0: off."""
        return times.parse(self.min_time)

    @property
    def hang_limit(self) -> float:
        """Seconds for which a library may keep all threads of Python from running (stream.process.watchdog): longer
        than a stop takes, and so
        long that stream.process.progress would have ended the process if it could."""
        return max(2 * self.stall_limit, 60.0)


def load(**values: Any) -> Settings:
    """Settings from all sources, `values` the strongest. Raises SettingsError naming each wrong field."""
    secrets = os.environ.get("FRESHET_SECRETS")
    _check_files(toml_file.path(), Path(secrets) if secrets else None)
    _check_names()
    try:
        return Settings(_secrets_dir=secrets, **values)  # type: ignore[call-arg]
    except ValidationError as error:
        problems = error.errors(include_input=False)
        raise SettingsError("; ".join(_said(one["loc"], one["type"], one["msg"]) for one in problems)) from None
    except UnreadableError as error:  # a list or object in the environment that is not JSON
        named = re.search(r'field "(\w+)"', str(error))
        name = named[1] if named else "settings"
        raise SettingsError(f"{name}: {expected_json(name)}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"config: not TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"config, secrets: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise SettingsError("config: nested too deep") from None
    except ValueError as error:  # a number of thousands of digits, a date that there is not
        raise SettingsError(f"config: {error}") from None


def _said(place: Sequence[int | str], kind: str, message: str) -> str:
    """The field, and what is wrong with it; never its value, which may be a secret under a wrong name."""
    name = ".".join(map(str, place)) or "settings"
    if kind == "extra_forbidden":
        return f"{name}: {no_setting(name)}"
    if kind in ("tuple_type", "list_type"):
        field = Settings.model_fields.get(name)
        example = f", like {json.dumps(field.default)}" if field is not None else ""
        return f"{name}: expected a list in brackets{example}"
    return f"{name}: {message.removeprefix('Value error, ')}"


def no_setting(name: str) -> str:
    """What is said of a name that no setting has."""
    if gone := GONE.get(name):
        return gone
    near = difflib.get_close_matches(name, Settings.model_fields, 1, cutoff=0.65)
    meant = f"is {near[0]} meant? " if near else ""
    return f"there is no such setting; {meant}docs/configuration.md has all"


def expected_json(name: str) -> str:
    """What is said where a list is expected, and its text is none."""
    field = Settings.model_fields.get(name)
    example = json.dumps(field.default) if field is not None else "[1, 2]"
    return f"expected JSON, like {example}"


def _check_names() -> None:
    """Raises SettingsError for a variable of the environment that looks like a setting and is none: a slip of the pen."""
    prefix = "FRESHET_"
    for variable in sorted(os.environ):
        name = variable.removeprefix(prefix)
        if name == variable or variable in OTHERS or KUBERNETES.fullmatch(variable):
            continue
        if name.lower() not in Settings.model_fields:
            raise SettingsError(f"{variable}: {no_setting(name.lower())}")


def _check_files(config: Path, secrets: Path | None) -> None:
    """Neither is missing where it was named, nor larger than anybody would write it."""
    try:
        if config.is_file() and config.stat().st_size > MAX_FILE:
            raise SettingsError(f"config: {config} is larger than {MAX_FILE} bytes")
        if secrets is None:
            return
        if not secrets.is_dir():
            raise SettingsError(f"FRESHET_SECRETS: {secrets} is no folder")
        for name in SECRETS:
            file = secrets / f"freshet_{name}"
            if file.is_file() and file.stat().st_size > MAX_FILE:
                raise SettingsError(f"{name}: {file} is larger than {MAX_FILE} bytes")
    except (OSError, ValueError) as error:
        raise SettingsError(f"config, secrets: cannot be read: {error}") from None
