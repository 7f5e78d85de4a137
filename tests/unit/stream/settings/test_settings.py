"""Settings: where they come from, what is refused and how it is said."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.clients.arguments import client_arguments
from stream.core.errors import SettingsError
from stream.settings import Settings, load, placement_of
from tests.conftest import ROOT


def test_the_strongest_source_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load().app_id == "freshet"
    (tmp_path / "freshet.toml").write_text('app_id = "file"\npartitions = 7\nprefix = "f-"')
    assert load().app_id == "file"
    monkeypatch.setenv("FRESHET_APP_ID", "environment")
    assert load().app_id == "environment"
    given = load(app_id="flag")
    assert (given.app_id, given.partitions, given.prefix) == ("flag", 7, "f-")


def test_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("partitions = 9")
    monkeypatch.setenv("FRESHET_CONFIG", str(tmp_path / "other.toml"))
    assert load().partitions == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"partitions": 0}, "partitions: "),
        ({"app_id": "a b"}, "app_id: "),
        ({"prefix": "x/"}, "prefix: "),
        ({"provider": "tpu"}, "provider: "),
        ({"rating_scale": (5, 1)}, "rating_scale: "),
        ({"rating_scale": "x"}, "rating_scale"),
        ({"session_timeout": 6, "heartbeat_interval": 3}, "heartbeat_interval: "),
        ({"inference_timeout": 6}, "inference_timeout: "),
        ({"security_protocol": "SASL_SSL"}, "sasl_username: "),
        ({"web_port": 70000}, "web_port: found 70000 (a whole number), expected a whole number from 0 to 65535"),
        ({"serve_port": "99999"}, "serve_port: found 99999, expected a whole number from 0 to 65535"),
        (
            {"serve_port": "hunter2"},
            "serve_port: found a text of 7 characters, expected a whole number from 0 to 65535",
        ),
        ({"serve_port": "9" * 5000}, "serve_port: found a text of 5000 characters, expected a whole number"),
        ({"serve_port": None}, "serve_port: found null, expected a whole number"),
        ({"serve_port": 1.5}, "serve_port: found 1.5 (a number), expected a whole number"),
        ({"serve_rate": "-1"}, "serve_rate: found -1, expected a number from 0 to 1000000"),
        ({"serve_rate": "inf"}, "serve_rate: found inf, expected a number from 0 to 1000000"),
        (
            {"commit_interval": 0},
            "commit_interval: found 0 (a whole number), expected a number above 0 and of at most 60",
        ),
        ({"held_events": 0}, "held_events: found 0 (a whole number), expected a whole number of at least 1"),
        ({"accept_loss": "maybe"}, "accept_loss: found a text of 5 characters, expected true or false"),
        ({"key": "q"}, "key: found a text of 1 characters, expected utf8, json or long"),
        ({"app_id": ""}, 'app_id: found "" (a text), expected 1 to 100 letters, digits, dots, underscores'),
        ({"rating_scale": [1]}, "rating_scale.1: found a list of 1, expected a list of 2 numbers in brackets"),
        (
            {"serve_partitions": ["x"]},
            "serve_partitions.0: found a text of 1 characters, expected a list of whole numbers",
        ),
        ({"data_dir": 5}, "data_dir: found 5 (a whole number), expected a path"),
        ({"sasl_password": 5}, "sasl_password: expected a text"),
        (
            {"placements": 5},
            "placements: found 5 (a whole number), expected name -> placement, as a table or a JSON object",
        ),
        ({"placements": {"cart": []}}, "placements.cart: found a list of 0, expected a table or a JSON object"),
        ({"placements": {"a b": {}}}, "placements.a b: expected a name of 1 to 64 letters, digits, dots, underscores"),
        (
            {"placements": {"default": {}}},
            "placements.default: slate_size, filter_seen and diversity describe this one",
        ),
        (
            {"placements": {"cart": {"size": 0}}},
            "placements.cart.size: found 0 (a whole number), expected a whole number from 1 to 100",
        ),
        (
            {"placements": {"cart": {"diversity": "much"}}},
            "placements.cart.diversity: found a text of 4 characters, expected a number from 0 to 1",
        ),
        (
            {"placements": {"cart": {"diversity": float("nan")}}},
            "placements.cart.diversity: found nan (a number), expected a number from 0 to 1",
        ),
        (
            {"placements": {"cart": {"filter_seen": 1}}},
            "placements.cart.filter_seen: found 1 (a whole number), expected true or false",
        ),
        (
            {"placements": {"cart": {"filter": {"all": [{"price": {"gt": "x"}}]}}}},
            'placements.cart.filter.all[0].price.gt: found "x" (a text), expected a number within 1e+15 or a date',
        ),
        (
            {"placements": {"cart": {"filter": 5}}},
            "placements.cart.filter: found 5 (a whole number), expected a filter",
        ),
        (
            {"placements": {"cart": {"sice": 4}}},
            "placements.cart.sice: there is no such field; expected one of size, filter, diversity, filter_seen",
        ),
        ({"placements": {f"p{n}": {} for n in range(33)}}, "placements: found 33 placements, expected at most 32"),
        ({"published": ["cart"]}, "published: found 'cart', expected one of default"),
        ({"published": []}, "published: found [], expected at least one placement, each once"),
        ({"published": ["default"] * 2}, 'published: found ["default", "default"], expected at least one placement'),
        ({"published": "cart"}, 'published: expected a list in brackets, like ["default"]'),
        ({"colour": "red"}, "colour: there is no such setting"),
        ({"broker": "b:1"}, "broker: there is no such setting; did you mean brokers?"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**values)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 78


def test_placements_come_from_a_table_or_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = load()
    assert (plain.placement_names, plain.published_in_order) == (("default",), ("default",))
    (tmp_path / "freshet.toml").write_text(
        'published = ["default", "cart"]\nslate_size = 7\n[placements.cart]\nfilter_seen = false\ndiversity = 1\n'
        '[placements.cart.filter]\ncategory = "toys"\n[placements.home]\n'
    )
    found = load(diversity=0.5)
    assert found.placement_names == ("default", "cart", "home")
    assert found.published_in_order == ("cart", "default"), "compaction keeps the last one"
    cart, home, default = (placement_of(found, name) for name in ("cart", "home", "default"))
    assert (cart.size, cart.filter, cart.diversity, cart.filter_seen) == (7, {"category": "toys"}, 1.0, False)
    assert home == default
    assert (home.size, home.filter, home.diversity, home.filter_seen) == (7, None, 0.5, True)
    monkeypatch.setenv("FRESHET_PLACEMENTS", '{"side": {"size": 3}}')
    monkeypatch.setenv("FRESHET_PUBLISHED", '["side"]')
    assert placement_of(load(), load().published_in_order[0]).size == 3
    monkeypatch.setenv("FRESHET_PLACEMENTS", "{")
    with pytest.raises(SettingsError, match=r"^placements: expected JSON, like \{\}$"):
        load()


PATHS = [name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)]


@pytest.mark.parametrize("name", PATHS)
def test_an_empty_path_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    default = getattr(load(), name)
    (tmp_path / "freshet.toml").write_text(f'{name} = ""\n')
    monkeypatch.chdir(tmp_path)
    assert getattr(load(), name) == default
    (tmp_path / "freshet.toml").unlink()
    monkeypatch.setenv(f"FRESHET_{name.upper()}", "")
    monkeypatch.setenv("FRESHET_CONFIG", "")
    assert getattr(load(), name) == default
    assert name not in load().model_fields_set
    assert len(PATHS) >= 8


def test_a_variable_that_is_no_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHET_BROKER", "kafka:9092")
    with pytest.raises(SettingsError, match=r"FRESHET_BROKER: there is no such setting; did you mean brokers\?"):
        load()


@pytest.mark.parametrize(
    "name",
    [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_HTTP",
        "PORT",
        "PORT_9464_TCP",
        "PORT_9464_TCP_ADDR",
        "WORKER_SERVICE_HOST",
    ],
)
def test_variables_that_kubernetes_sets_are_no_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"FRESHET_{name}", "tcp://10.0.0.1:9464")
    load()


@pytest.mark.parametrize("variable", ["FRESHET_PLACEMENTS", "freshet_placements"])
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"cart": {"size": 5}, "home": {}, "cart": {"size": 6}}', "placements.cart"),
        ('{"cart": {"size": 5, "size": 6}}', "placements.cart.size"),
        ('{"cart": {"filter": {"all": [{"price": 1, "price": 2}]}}}', "placements.cart.filter.all[0].price"),
    ],
)
def test_a_name_that_the_environment_has_twice_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as raised:
        load()
    assert str(raised.value) == f"{field}: found it more than once, expected it once"


@pytest.mark.parametrize("found", ["1 5", "[1 5]", "1, 5", "[1, 5"])
def test_a_list_that_is_no_json_is_told_by_an_example(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    message = "rating_scale: expected JSON, like [0.5, 5.0]"
    monkeypatch.setenv("FRESHET_RATING_SCALE", found)
    with pytest.raises(SettingsError) as raised:
        load()
    assert str(raised.value) == message
    if found.startswith("["):
        monkeypatch.delenv("FRESHET_RATING_SCALE")
        error = CliRunner().invoke(app, ["--set", f"rating_scale={found}", "topics", "check"]).exception
        assert isinstance(error, SettingsError)
        assert str(error) == message


def test_several_wrong_values_are_all_named() -> None:
    with pytest.raises(SettingsError, match=r"partitions: .*; .*provider: "):
        load(partitions=0, provider="tpu")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().partitions = 3  # type: ignore[misc]


def test_topics_carry_the_prefix_and_the_changelog_the_app() -> None:
    settings = load(prefix="p-", app_id="a")
    assert settings.sources == ("p-clicks", "p-ratings", "p-comments")
    assert settings.items_topic == "p-items"
    assert settings.recommendations_topic == "p-recommendations"
    assert settings.dead_letters_topic == "p-dead-letters"
    assert settings.changelog_topic == "a-interest-changelog"


def test_plain_clients_get_the_brokers_only() -> None:
    assert client_arguments(load(brokers="a:1,b:2")) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRESHET_SECRETS", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"FRESHET_SECRETS: .*absent is not a folder"):
        load()


@pytest.mark.parametrize("name", ["freshet.toml", "secrets/freshet_sasl_password"])
def test_a_file_of_settings_has_a_largest_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    (tmp_path / "secrets").mkdir()
    monkeypatch.setenv("FRESHET_SECRETS", str(tmp_path / "secrets"))
    (tmp_path / name).write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match="larger than 1048576 bytes"):
        load()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = " + b"[" * 100_000])
def test_a_settings_file_of_anything_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "freshet.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="config"):
        load()


CONTRADICTIONS = [
    ({"rating_scale": (5, 1)}, "rating_scale: found [5, 1], expected the smallest rating below the largest"),
    (
        {"session_timeout": 6, "heartbeat_interval": 3, "inference_timeout": 3},
        "heartbeat_interval: found 3 s, expected at most a third of session_timeout (6 s): ",
    ),
    ({"inference_timeout": 6}, "inference_timeout: found 6 s, expected at most half of session_timeout (10 s): "),
    (
        {"session_timeout": 60, "heartbeat_interval": 3, "inference_timeout": 20, "rebalance_timeout": 22},
        "rebalance_timeout: found 22 s, expected at least heartbeat_interval (3 s) and inference_timeout (20 s) together: ",
    ),
    ({"request_timeout": 9}, "request_timeout: found 9 s, expected at least session_timeout (10 s): "),
    ({"request_timeout": 29}, "request_timeout: found 29 s, expected at least rebalance_timeout (30 s): "),
    (
        {"request_timeout": 30, "session_timeout": 40},
        "request_timeout: found 30 s, expected at least session_timeout (40 s): ",
    ),
    (
        {"request_timeout": 20, "rebalance_timeout": 25.5},
        "request_timeout: found 20 s, expected at least rebalance_timeout (25.5 s): ",
    ),
]


@pytest.mark.parametrize(("values", "message"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused_with_both_and_what_to_do(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**values)
    assert message in str(raised.value)
    assert raised.value.exit_code == 78


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"heartbeat_interval: .*; inference_timeout: .*; request_timeout: "):
        load(session_timeout=6, heartbeat_interval=3, inference_timeout=4, request_timeout=2)


@pytest.mark.parametrize(
    "values",
    [
        {"session_timeout": 9, "heartbeat_interval": 3, "inference_timeout": 4.5},
        {"session_timeout": 60, "heartbeat_interval": 3, "inference_timeout": 20, "rebalance_timeout": 23},
        {"request_timeout": 30, "session_timeout": 30, "rebalance_timeout": 30},
        {
            name: field.default
            for name, field in Settings.model_fields.items()
            if "timeout" in name or "interval" in name
        },
        {"request_timeout": 100, "rebalance_timeout": 60, "session_timeout": 60},
    ],
)
def test_settings_that_just_agree_are_taken(values: dict[str, object]) -> None:
    load(**values)


@pytest.mark.parametrize(
    ("values", "seconds"),
    [({}, 31), ({"session_timeout": 120}, 121), ({"rebalance_timeout": 60}, 61), ({"request_timeout": 300}, 300)],
)
def test_a_join_that_the_group_holds_for_as_long_as_it_may_is_waited_for(
    values: dict[str, object], seconds: float
) -> None:
    """A request_timeout that nobody has given follows what the group may take; a given one that is too short is refused."""
    assert load(**values).group_request_timeout == seconds


def test_a_given_request_timeout_is_refused_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRESHET_REQUEST_TIMEOUT", "5")
    with pytest.raises(SettingsError, match="request_timeout: found 5 s"):
        load()


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 120.0),
        ({"stall_timeout": 600}, 600.0),
        ({"stall_timeout": 10}, 80.0),  # a rebalance
        ({"stall_timeout": 10, "commit_interval": 60}, 161.0),  # offsets move once a commit_interval, after a request
        ({"stall_timeout": 10, "request_timeout": 600}, 611.0),
        ({"commit_interval": 60, "request_timeout": 300}, 430.0),
        ({"stall_timeout": 10, "session_timeout": 300, "rebalance_timeout": 6, "commit_interval": 60}, 612.0),
    ],
)
def test_work_may_stand_for_as_long_as_one_step_of_it_may_take(values: dict[str, float], seconds: float) -> None:
    assert load(**values).stall_limit == seconds


@runs(max_examples=60, deadline=None)
@given(
    session=st.floats(1, 300), rebalance=st.floats(1, 600), commit=st.floats(0.1, 60), request=st.floats(1, 600),
    stall=st.floats(10, 3600),
)  # fmt: skip
def test_no_step_is_longer_than_work_may_stand(
    session: float, rebalance: float, commit: float, request: float, stall: float
) -> None:
    inference = min(5, session / 4)
    rebalance = max(rebalance, 1 + inference)
    request = max(request, session, rebalance)
    made = Settings(
        session_timeout=session, heartbeat_interval=min(1, session / 4), inference_timeout=inference,
        rebalance_timeout=rebalance, commit_interval=commit, request_timeout=request, stall_timeout=stall,
    )  # fmt: skip
    steps = (
        stall,
        2 * (session + rebalance),
        2 * commit,
        request + 10,
        commit + max(request, session + 1, rebalance + 1),
    )
    assert made.stall_limit >= max(steps)


def read_of_settings(sources: Iterable[str], definition: str) -> set[str]:
    """The settings that some source reads: as an attribute of something that holds Settings, or by a property of Settings
    that is itself read. What only a validator reads decides nothing.

    Settings are what is called `settings`, or is annotated as Settings.
    """
    read: set[str] = set()
    for tree in map(ast.parse, sources):
        annotated = [node for node in ast.walk(tree) if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation]
        holders = {
            ast.unparse(node.target) if isinstance(node, ast.AnnAssign) else node.arg
            for node in annotated
            if node.annotation is not None and ast.unparse(node.annotation) == "Settings"
        }
        read |= attributes(tree, holders)
    (settings,) = (
        node for node in ast.parse(definition).body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    properties = {
        node.name: attributes(node, {"self"})
        for node in settings.body
        if isinstance(node, ast.FunctionDef) and "property" in map(ast.unparse, node.decorator_list)
    }
    while not (more := set().union(*(properties[name] for name in read & properties.keys()))) <= read:
        read |= more
    return read


def attributes(tree: ast.AST, holders: Collection[str]) -> set[str]:
    """The attributes that are read from a holder, by its text, or from whatever is called `settings`: self._settings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = ast.unparse(node.value)
            if name in holders or name.split(".")[-1].lstrip("_") == "settings":
                found.add(node.attr)
    return found


DEFINITION = """
class Settings(BaseSettings):
    a: int
    b: int

    @model_validator(mode="after")
    def agree(self): return self.a

    @property
    def outer(self): return self.inner

    @property
    def inner(self): return self.b
"""


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("print(settings.a, self._settings.a, worker.settings.a)", {"a"}),
        ("def run(base: Settings): return base.a", {"a"}),
        ("print(settings.outer)", {"outer", "inner", "b"}),
        ("settings.a = 1; print('settings.a'); self.a; other.a  # settings.a", set()),
        ("def run(base: Other): return base.a", set()),
        ("print(settings.model_dump().a)", {"model_dump"}),
    ],
)
def test_what_reads_a_setting(source: str, read: set[str]) -> None:
    assert read_of_settings([source], DEFINITION) == read


def test_every_setting_is_read_somewhere() -> None:
    definition = ROOT / "stream" / "settings" / "settings.py"
    files = [path for folder in ("stream", "deploy") for path in (ROOT / folder).rglob("*.py") if path != definition]
    read = read_of_settings((path.read_text("utf-8") for path in files), definition.read_text("utf-8"))
    assert set(Settings.model_fields) - read == set()


@pytest.mark.parametrize("source", ["flag", "file"])
def test_a_setting_that_is_gone_is_told_with_what_took_its_place(tmp_path: Path, source: str) -> None:
    (tmp_path / "freshet.toml").write_text("comment_tokens = 64" if source == "file" else "")
    with pytest.raises(
        SettingsError, match=r"^comment_tokens: there is no such setting any more: .*bundle.*leave it out"
    ):
        load(**({"comment_tokens": 64} if source == "flag" else {}))
