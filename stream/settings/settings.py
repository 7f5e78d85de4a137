"""All settings of freshet in one frozen object, validated once and passed in.

The sources, strongest first: values given in code (the command's flags), the environment (`FRESHET_BROKERS=...`), a
TOML file (`FRESHET_CONFIG`, or `freshet.toml` in the current folder), and the defaults below. Secrets come from the
environment or from a file in `secrets_dir` (`FRESHET_SECRETS`), never from a flag.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

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
from stream.core.repeated_names import repeated_name
from stream.settings import addresses, placements, toml_file, wording
from stream.settings.placements import DEFAULT, Placement

SLACK = 10.0  # seconds in addition to a commit's own, for a client that sends it again
MAX_FILE = 1 << 20  # bytes of a settings file or of one secret
MOST_RATING = 1e9  # as in the schemas
SECRETS = ("sasl_password", "ssl_keypassword")
"""Never given on a command line, which every user of the machine can read, and never shown."""
OTHERS = {"FRESHET_CONFIG", "FRESHET_SECRETS", "FRESHET_DATA"}
"""Variables that are not settings."""
KUBERNETES = re.compile(
    r"FRESHET_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)"
)
"""Variables that Kubernetes sets in every pod if a service is called freshet or freshet-something."""

GONE = {
    "comment_tokens": "there is no such setting any more: it had no effect. The bundle defines how many tokens of a text "
    "are read, as in training (dims.max_tokens in its manifest.json); leave it out"
}
"""Settings of former versions, and what to do if one is still given."""


class Settings(BaseSettings):
    """Every field is also an environment variable: FRESHET_ and the name in capitals."""

    model_config = SettingsConfigDict(env_prefix="FRESHET_", frozen=True, extra="forbid")

    # Kafka
    brokers: str = Field("127.0.0.1:9092", description="host:port[,host:port...] of the Kafka brokers")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol of the connections to the brokers"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", description="SASL mechanism, for the SASL protocols"
    )
    sasl_username: str = Field("", description="user name, for PLAIN and SCRAM")
    sasl_password: SecretStr = Field(
        SecretStr(""), description="password, for PLAIN and SCRAM; from the environment or a file in FRESHET_SECRETS"
    )
    sasl_token_file: Path | None = Field(
        None, description="file with the bearer token, for OAUTHBEARER; read again for each connection"
    )
    ssl_cafile: Path | None = Field(
        None, description="PEM file of the certificate authorities to trust; empty: the system's"
    )
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's key")
    ssl_keypassword: SecretStr = Field(
        SecretStr(""), description="password of ssl_keyfile; from the environment or a file in FRESHET_SECRETS"
    )
    app_id: str = Field(
        "freshet", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="consumer group and changelog prefix"
    )
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,100}$", description="prefix of every topic name")
    partitions: int = Field(
        4, ge=1, le=10_000, description="partitions of clicks, ratings and comments (topics create)"
    )
    replication: int = Field(
        0, ge=0, le=9, description="copies of every topic (topics create); 0: the cluster's default.replication.factor"
    )
    session_timeout: float = Field(
        10.0, ge=1, le=300, description="seconds without a heartbeat until the group goes on without this worker"
    )
    heartbeat_interval: float = Field(
        1.0, gt=0, le=60, description="seconds between heartbeats; at most a third of session_timeout"
    )
    rebalance_timeout: float = Field(
        30.0,
        ge=1,
        le=600,
        description="seconds that a rebalance may take; at least the sum of heartbeat_interval and inference_timeout",
    )
    commit_interval: float = Field(0.5, gt=0, le=60, description="seconds between two offset commits")
    startup_timeout: float = Field(30.0, ge=0, le=3600, description="seconds to wait for a broker at start")
    request_timeout: float = Field(
        30.0,
        ge=1,
        le=600,
        description="seconds until a request counts as failed; if set, at least session_timeout and at least rebalance_timeout. "
        "The group's consumer waits at least one second longer than these, since the group may delay a join for that long",
    )
    stall_timeout: float = Field(
        120.0,
        ge=10,
        le=3600,
        description="seconds for which a worker may have work and make no progress, until it ends with 70. At least twice "
        "the sum of session_timeout and rebalance_timeout is used, and at least the sum of 10 s, request_timeout and twice "
        "commit_interval",
    )
    standby_replicas: int = Field(
        0, ge=0, le=8, description="workers that follow each partition's changelog in addition to its owner"
    )
    changelog_compression: Literal["none", "gzip", "zstd"] = Field(
        "none", description="codec of the changelog's record batches ([what it costs](kafka.md#compression))"
    )
    slate_compression: Literal["none", "gzip", "zstd"] = Field(
        "none", description="codec of the record batches of `recommendations`; all its consumers must know the codec"
    )
    accept_loss: bool = Field(False, description="continue even if source records were deleted before they were read")

    # state and models
    data_dir: Path = Field(
        Path("data/worker"),
        description="folder of this worker's RocksDB; if none is set and this one is in use, `data/worker-2` and so on",
    )
    bundles: Path = Field(Path("bundles"), description="folder with CURRENT and the bundles")
    provider: Literal["cuda", "auto", "cpu"] = Field(
        "auto", description="cuda: fail if there is no usable GPU; auto: fall back to the CPU and log it"
    )
    rating_scale: tuple[float, float] = Field(
        (0.5, 5.0),
        description="smallest and largest rating that is accepted, as JSON; must be those that the bundle was trained with",
    )
    min_time: str = Field(
        times.MIN_TIME,
        description="events with an older `time` become dead letters: an ISO date, a year (its first day), epoch milliseconds, "
        "or off; after a change, [verify](verify.md) needs the former value",
    )
    slate_size: int = Field(10, ge=1, le=100, description="maximum number of items in a slate")
    filter_seen: bool = Field(True, description="never recommend an item that the user has interacted with")
    diversity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="strength with which slates are re-ranked: 0, by score alone, to 1, as diverse as possible; if it is not "
        "set, the bundle's ([diversity](diversity.md))",
    )
    diversity_candidates: int = Field(
        100, ge=1, le=1000, description="how many of the best items are re-ranked; never fewer than a slate has"
    )
    tables: Literal["bundle", "stream"] = Field(
        "stream",
        description="where neighbours and popularity in the score come from: the newest epoch of the topic `tables`, and the "
        "bundle until there is one; or always the bundle",
    )
    popular_by: Literal["training", "tables", "trending"] = Field(
        "training",
        description="what the slate for unknown users ranks by: interactions in training; the decayed counts of the newest "
        "epoch of the topic `tables`; or, in choices a day, how much more often than usual an item is chosen lately, which needs "
        "a shorter half-life of popularity than of neighbours. Without an epoch: interactions in training",
    )
    placements: dict[str, Placement] = Field(
        {},
        description="[placements](placements.md), as JSON: name -> `size`, `filter`, `diversity`, `filter_seen`, as far as they "
        "differ from those of the placement `default`, which is always there",
    )
    published: tuple[str, ...] = Field(
        (DEFAULT,), description="[placements](placements.md) for which workers publish a slate for each event, as JSON"
    )

    reissue_rate: float = Field(
        20_000.0,
        ge=1,
        le=1_000_000,
        description="slates per second that a worker re-issues at most when an item that they show is withdrawn "
        "([rules](rules.md#slates-that-stand-already))",
    )

    # hot path
    micro_batch: int = Field(512, ge=1, le=5000, description="maximum number of records in one micro-batch")
    linger_ms: float = Field(
        2.0, ge=0, le=1000, description="milliseconds to wait for more records if few have arrived"
    )
    inference_timeout: float = Field(
        5.0, gt=0, le=60, description="seconds for one call of a model's graph; at most half of session_timeout"
    )
    misplaced: Literal["forward", "dead-letter"] = Field(
        "forward",
        description="what happens to a good record on a wrong partition: it is forwarded, or becomes a dead letter",
    )
    envelope: Literal["none", "connect", "debezium", "cloudevents"] = Field(
        "none",
        description="envelope around the events of the source topics: none; Kafka Connect's JsonConverter with schemas; "
        "Debezium's change events; CloudEvents in structured mode (messages.md). A record without the envelope is read as it is",
    )
    key: Literal["utf8", "json", "long"] = Field(
        "utf8",
        description="form in which a user id is the key of a record, in all topics of freshet that have users as keys: "
        "utf8, its text; json, a JSON string; long, a whole number in 8 bytes ([clients](clients.md#serializers)). It cannot be "
        "changed once there are states",
    )
    comment_cache: int = Field(10_000, ge=0, description="maximum number of cached comment vectors, by text hash")
    held_events: int = Field(
        5_000, ge=1, description="events that may wait behind comments; beyond that, no comments are fetched"
    )

    # operations
    web_host: str = Field(
        "127.0.0.1",
        description="host or address of the health server; 0.0.0.0 (or ::) for all addresses of this machine",
    )
    web_port: int = Field(9464, ge=0, le=65535, description="port of /metrics, /healthz and /readyz; 0: any free port")
    web_hosts: tuple[str, ...] = Field(
        (),
        description="names in the header Host that the health server accepts, as JSON, besides addresses, names without a dot, "
        'names that end in .local, .internal or .svc, web_host and this machine\'s own name; ["*"]: any',
    )
    # the HTTP API (freshet serve)
    serve_host: str = Field(
        "127.0.0.1",
        description="host or address of the HTTP API; any other than this machine's own (127.0.0.1, ::1, localhost) requires "
        "serve_tokens",
    )
    serve_port: int = Field(8080, ge=0, le=65535, description="port of the HTTP API; 0: any free port")
    serve_partitions: tuple[int, ...] = Field(
        (), description="partitions whose users the HTTP API answers for, as JSON; []: all"
    )
    replica_dir: Path = Field(
        Path("data/replica"),
        description="folder of the HTTP API's RocksDB, a copy of the states; each `freshet serve` needs a separate one",
    )
    serve_tokens: Path | None = Field(
        None,
        description="file with the tokens of the HTTP API, one a line: a name, its scopes (read, write, admin) separated by "
        "commas, and the token of at least 32 characters; read again when it changes",
    )
    serve_hosts: tuple[str, ...] = Field(
        (),
        description="names in the header Host that the HTTP API accepts, as JSON; []: this machine's own names, or with "
        'serve_tokens any; ["*"]: any',
    )
    serve_origins: tuple[str, ...] = Field(
        (), description="origins of pages that may read the HTTP API in a browser (CORS), as JSON"
    )
    serve_body: int = Field(1 << 20, ge=1024, le=64 << 20, description="maximum bytes of a request's body")
    serve_timeout: float = Field(10.0, ge=0.1, le=300, description="seconds until a request is answered with 503")
    serve_wait: float = Field(
        2.0,
        ge=0,
        le=60,
        description="seconds that a request with `min_offset` waits for that event; shorter than serve_timeout",
    )
    serve_rate: float = Field(
        0.0,
        ge=0,
        le=1_000_000,
        description="requests per second that one client (a valid token, else an address) may send; 0: any number. Health and "
        "metrics are not limited",
    )
    serve_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="connections to the HTTP API at the same time; more are answered with 503, but for "
        "health and metrics",
    )
    serve_figures: Path | None = Field(
        None,
        description="JSON file with a hit rate that another program measures, for GET /v1/figures and the demo page; read at "
        "each request; what is wrong with it is logged, and answered in hit_rate_error",
    )
    serve_trending: float = Field(
        3600.0,
        ge=60,
        le=86400,
        description="seconds of the window of GET /v1/trending, which is compared with the one before it",
    )
    # the tally (freshet tally)
    tally_dir: Path = Field(
        Path("data/tally"), description="folder of the tally's RocksDB: its sums, and how far it has read; must be kept"
    )
    tally_epoch_seconds: float = Field(
        30.0, ge=0.1, le=86_400, description="seconds after which the tally publishes what it has counted since"
    )
    tally_epoch_events: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="source records after which the tally publishes, in addition to tally_epoch_seconds; 0: by time alone",
    )
    tally_half_life: float | None = Field(
        None,
        ge=0,
        le=36_500,
        description="days after which a choice counts half in the neighbours; 0: time does not matter. This setting and the "
        "next five: if they are not set, those that the sums were counted with, else the bundle's, else 1095, 365, 10, 0.8, "
        "0.5 and 5",
    )
    tally_prior_half_life: float | None = Field(
        None, ge=0, le=36_500, description="the same in popularity; 0: time does not matter"
    )
    tally_reach: int | None = Field(None, ge=1, le=64, description="how many choices ahead pair with a choice")
    tally_decay: float | None = Field(None, ge=0, le=1, description="factor of a pair per choice of distance")
    tally_back: float | None = Field(
        None, ge=0, le=10, description="weight of the backward direction of a pair, rounded to a multiple of 1/1024"
    )
    tally_shrink: float | None = Field(
        None, ge=0, le=1e6, description="choices that are added to the denominator of a neighbour's weight"
    )
    tally_keep: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="most neighbours of an item; if it is not set, as many as the bundle's, else 100",
    )
    tally_cap: int = Field(
        3, ge=1, le=1000, description="the most that one user counts in a pair, in times of the greatest single addend"
    )
    tally_landmark: str = Field(
        "",
        description="time at which a choice weighs 1: an ISO date or epoch milliseconds; if it is not set, the one of the "
        "tally's folder, else of the topic `tables`, else min_time. Only a half-life below about 20 days needs a later one",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe level that is logged; the log is JSON lines on stderr"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty_paths(cls, values: Any) -> Any:
        """Leave out paths that are empty: they mean the default, and not the current folder."""
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value != "" or name not in PATHS}

    @field_validator("min_time", mode="before")
    @classmethod
    def _min_time(cls, value: object) -> str:
        """Return the value as text: TOML may give a date or a number."""
        text = value.isoformat() if isinstance(value, date) else "" if isinstance(value, bool) else str(value)
        times.parse(text)
        return text

    @field_validator("placements", mode="before")
    @classmethod
    def _placements(cls, value: object) -> object:
        if problems := list(placements.wrong(value)):
            raise ValueError("; ".join(problems))
        return value

    @field_validator("tally_landmark", mode="before")
    @classmethod
    def _tally_landmark(cls, value: object) -> str:
        """Return the value as text: TOML may give a date or a number."""
        text = value.isoformat() if isinstance(value, date) else str(value)
        if text:
            times.parse(text)
        return text

    _brokers = field_validator("brokers")(addresses.brokers)
    _web_host = field_validator("web_host")(addresses.interface)
    _serve_host = field_validator("serve_host")(addresses.interface)

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if wrong := list(self._contradictions()):
            raise ValueError("; ".join(wrong))
        if self.security_protocol.startswith("SASL"):
            if self.sasl_mechanism == "OAUTHBEARER":
                if self.sasl_token_file is None:
                    raise ValueError("sasl_token_file: expected a file with the token for OAUTHBEARER")
            elif not self.sasl_username:
                raise ValueError(f"sasl_username: expected a user name for {self.sasl_mechanism}")
            elif not self.sasl_password.get_secret_value():
                raise ValueError(
                    "sasl_password: expected a password, from FRESHET_SASL_PASSWORD or a file in FRESHET_SECRETS"
                )
        return self

    def _contradictions(self) -> Iterator[str]:
        """Yield a message for each contradiction: the settings, what was found, what was expected, and what to do."""
        low, high = self.rating_scale
        session, rebalance, request = self.session_timeout, self.rebalance_timeout, self.request_timeout
        heartbeat, inference = self.heartbeat_interval, self.inference_timeout
        found = f"rating_scale: found [{low:g}, {high:g}], expected"
        if not (abs(low) <= MOST_RATING and abs(high) <= MOST_RATING):  # nan is not within any range
            yield f"{found} two numbers within {MOST_RATING:g}: the smallest rating, then the largest"
        elif low >= high:
            cure = "swap the two" if low > high else "give two different numbers"
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
        if (
            heartbeat + inference > rebalance
        ):  # a heartbeat reports the rebalance, and the current model call must end first
            yield (
                f"rebalance_timeout: found {rebalance:g} s, expected at least heartbeat_interval ({heartbeat:g} s) and "
                f"inference_timeout ({inference:g} s) together: make it longer, or the group will go on without this worker"
            )
        if self.serve_wait >= self.serve_timeout:
            yield (
                f"serve_wait: found {self.serve_wait:g} s, expected less than serve_timeout ({self.serve_timeout:g} s): make it "
                "shorter, or serve_timeout longer"
            )
        if wrong := [partition for partition in self.serve_partitions if partition < 0]:
            yield f"serve_partitions: found {wrong[0]}, expected partitions from 0 on"
        known = self.placement_names
        if wrong_names := [name for name in self.published if name not in known]:
            yield f"published: found {wrong_names[0][:64]!r}, expected one of {', '.join(known)}"
        elif not self.published or len(set(self.published)) < len(self.published):
            yield f"published: found {json.dumps(self.published)}, expected at least one placement, each once"
        # if it is not given, it follows from these: see `group_request_timeout`
        for name, held in (("session_timeout", session), ("rebalance_timeout", rebalance)):
            if "request_timeout" in self.model_fields_set and request < held:
                yield (
                    f"request_timeout: found {request:g} s, expected at least {name} ({held:g} s): the group may delay a join "
                    f"for that long; leave request_timeout out, make it longer, or make {name} shorter"
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

    # placements

    @property
    def placement_names(self) -> tuple[str, ...]:
        """The names of all placements, `default` first."""
        return DEFAULT, *self.placements

    @property
    def published_in_order(self) -> tuple[str, ...]:
        """The published placements in the order in which their slates are written: `default` is the last one, so that
        compaction keeps it."""
        return tuple(sorted(self.published, key=lambda name: name == DEFAULT))

    # topic names

    @property
    def sources(self) -> tuple[str, str, str]:
        """The three source topics, in the order of stream.core.messages.BEHAVIOURS."""
        clicks, ratings, comments = SOURCE_TOPICS
        return self.prefix + clicks, self.prefix + ratings, self.prefix + comments

    @property
    def items_topic(self) -> str:
        return self.prefix + "items"

    @property
    def rules_topic(self) -> str:
        return self.prefix + "rules"

    @property
    def recommendations_topic(self) -> str:
        return self.prefix + "recommendations"

    @property
    def dead_letters_topic(self) -> str:
        return self.prefix + "dead-letters"

    @property
    def forgotten_topic(self) -> str:
        return self.prefix + "forgotten"

    @property
    def tables_topic(self) -> str:
        return self.prefix + "tables"

    @property
    def bundles_topic(self) -> str:
        return self.prefix + "bundles"

    @property
    def changelog_topic(self) -> str:
        """Faust's name for the changelog of the table `interest`."""
        return f"{self.app_id}-interest-changelog"

    @property
    def stall_limit(self) -> float:
        """Seconds for which work may stand still: stall_timeout, but at least what a rebalance or a commit may take."""
        rebalance = 2 * (self.session_timeout + self.rebalance_timeout)
        commit = 2 * self.commit_interval + self.group_request_timeout + SLACK
        return max(self.stall_timeout, rebalance, commit)

    @property
    def group_request_timeout(self) -> float:
        """Seconds until a request of the group's consumer counts as failed. The group may delay the answer to a join
        for as long as a session or a rebalance lasts."""
        return max(self.request_timeout, self.session_timeout + 1, self.rebalance_timeout + 1)

    @property
    def oldest(self) -> int:
        """`min_time` in epoch ms; 0: off."""
        return times.parse(self.min_time)

    @property
    def hang_limit(self) -> float:
        """Seconds for which a library may keep all Python threads from running (stream.process.watchdog). It is longer
        than a stop takes, and so long that stream.process.progress would have ended the process if it could."""
        return max(2 * self.stall_limit, 60.0)


PATHS: Final = frozenset(
    name for name, field in Settings.model_fields.items() if field.annotation in (Path, Path | None)
)
"""Settings that are paths."""
OBJECTS: Final = frozenset({"placements"})
"""Settings that are JSON objects in the environment."""
_LONGEST: Final = 200
"""Characters of a field's path that are shown."""


def load(**values: Any) -> Settings:
    """Return the settings from all sources; `values` are the strongest. Raises SettingsError with each wrong field."""
    secrets = os.environ.get("FRESHET_SECRETS")
    _check_files(toml_file.path(), Path(secrets) if secrets else None)
    _check_names()
    try:
        _check_repeated()
        return Settings(_secrets_dir=secrets, **values)
    except ValidationError as error:
        raise SettingsError("; ".join(map(_problem, error.errors()))) from None
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
    except ValueError as error:  # a number with thousands of digits, a date that does not exist
        raise SettingsError(f"config: {error}") from None


def _problem(problem: Mapping[str, Any]) -> str:
    """Return the field and what is wrong with it."""
    location, kind = problem["loc"], problem["type"]
    name = ".".join(map(str, location)) or "settings"
    if kind == "extra_forbidden":
        return f"{name}: {no_setting(name)}"
    if kind in ("tuple_type", "list_type"):
        field = Settings.model_fields.get(name)
        example = f", like {json.dumps(field.default)}" if field is not None else ""
        return f"{name}: expected a list in brackets{example}"
    if kind == "value_error":
        message = str(problem["msg"]).removeprefix("Value error, ")
        return message if message.startswith(f"{name}.") else f"{name}: {message}"
    schema = Settings.model_json_schema()["properties"][location[0]]
    if location[0] in SECRETS:
        return f"{name}: expected {wording.expected(schema)}"
    return f"{name}: {wording.wrong(schema, problem['input'])}"


def no_setting(name: str) -> str:
    """Return the message about a name that is not a setting."""
    if gone := GONE.get(name):
        return gone
    near = difflib.get_close_matches(name, Settings.model_fields, 1, cutoff=0.65)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"there is no such setting; {meant}docs/configuration.md lists all settings"


def expected_json(name: str) -> str:
    """Return the message about a text that should be a JSON list and is not."""
    field = Settings.model_fields.get(name)
    example = json.dumps(field.default) if field is not None else "[1, 2]"
    return f"expected JSON, like {example}"


def _check_names() -> None:
    """Raise SettingsError if an environment variable looks like a setting but is not one: it is probably a typo."""
    prefix = "FRESHET_"
    for variable in sorted(os.environ):
        name = variable.removeprefix(prefix)
        if name == variable or variable in OTHERS or KUBERNETES.fullmatch(variable):
            continue
        if name.lower() not in Settings.model_fields:
            raise SettingsError(f"{variable}: {no_setting(name.lower())}")


def _check_repeated() -> None:
    """Raise SettingsError if a JSON object in the environment has a name twice: the last one would count alone.

    TOML refuses that itself.
    """
    for variable, text in os.environ.items():
        name = variable.lower().removeprefix("freshet_")
        if name in OBJECTS and name != variable.lower():
            with suppress(json.JSONDecodeError):  # reported with what is expected
                if path := repeated_name(text):
                    raise SettingsError(f"{name}.{path[:_LONGEST]}: found it more than once, expected it once")


def _check_files(config: Path, secrets: Path | None) -> None:
    """Raise SettingsError if a file is too large, or if the folder of secrets is given but missing."""
    try:
        if config.is_file() and config.stat().st_size > MAX_FILE:
            raise SettingsError(f"config: {config} is larger than {MAX_FILE} bytes")
        if secrets is None:
            return
        if not secrets.is_dir():
            raise SettingsError(f"FRESHET_SECRETS: {secrets} is not a folder")
        for name in SECRETS:
            file = secrets / f"freshet_{name}"
            if file.is_file() and file.stat().st_size > MAX_FILE:
                raise SettingsError(f"{name}: {file} is larger than {MAX_FILE} bytes")
    except (OSError, ValueError) as error:
        raise SettingsError(f"config, secrets: cannot be read: {error}") from None
