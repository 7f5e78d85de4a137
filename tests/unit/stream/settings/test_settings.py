"""Settings: where they come from, what is refused and how it is said, and that secrets stay secret."""

from __future__ import annotations

import os
import re
import ssl
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.clients.arguments import client_arguments
from stream.core.errors import BrokerError, SettingsError
from stream.settings import Settings, load, security
from stream.settings.settings import SECRETS
from tests.conftest import ROOT

SECRET = "canary-7731"


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file and no variable of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FRESHET_")]:
        monkeypatch.delenv(name)


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
    ("values", "said"),
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
        ({"web_port": 70000}, "web_port: "),
        ({"colour": "red"}, "colour: there is no such setting"),
        ({"broker": "b:1"}, "broker: there is no such setting; did you mean brokers?"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**values)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 78


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


@pytest.mark.parametrize("found", ["1 5", "[1 5]", "1, 5", "[1, 5"])
def test_a_list_that_is_no_json_is_told_by_an_example(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    said = "rating_scale: expected JSON, like [0.5, 5.0]"
    monkeypatch.setenv("FRESHET_RATING_SCALE", found)
    with pytest.raises(SettingsError) as raised:
        load()
    assert str(raised.value) == said
    if found.startswith("["):
        monkeypatch.delenv("FRESHET_RATING_SCALE")
        told = CliRunner().invoke(app, ["--set", f"rating_scale={found}", "topics", "check"]).exception
        assert isinstance(told, SettingsError)
        assert str(told) == said


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


GOOD_BROKERS = [
    "kafka-1.example.org:9092",
    "10.0.0.1:1,10.0.0.2:65535",
    "[::1]:9092",
    "[fe80::1%eth0]:9092",
    "a_b:9092",
    "küche:9092",
    "kafka.:9092",
]


@pytest.mark.parametrize("brokers", GOOD_BROKERS)
def test_addresses_of_brokers(brokers: str) -> None:
    assert load(brokers=brokers).brokers == brokers


def test_spaces_around_addresses_reach_no_client() -> None:
    assert client_arguments(load(brokers=" a:1 , b:2\n"))["bootstrap_servers"] == ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("brokers", "found"),
    [
        ("", "''"),
        (" ", "''"),
        (",", "''"),
        ("a:1,", "''"),
        ("a:1,,b:2", "''"),
        (":9092", "':9092'"),
        ("[]:9092", "'[]:9092'"),
        ("kafka", "'kafka'"),
        ("kafka:", "'kafka:'"),
        ("kafka:x", "'kafka:x'"),
        ("kafka:-1", "'kafka:-1'"),
        ("kafka:0", "'kafka:0'"),
        ("kafka:65536", "'kafka:65536'"),
        ("kafka:1e3", "'kafka:1e3'"),
        ("kafka:" + "9" * 5000, "'kafka:999"),
        ("kafka:९", "'kafka:"),
        ("kafka:9092;b:9092", "'kafka:9092;b:9092'"),
        ("kafka:9092 b:9092", "'kafka:9092 b:9092'"),
        ("::1:9092", "'::1:9092'"),
        ("[::x]:9092", "'[::x]:9092'"),
        ("kafka://k:9092", "'kafka://k:9092'"),
        ("a b:1", "'a b:1'"),
        ("a\nb:1", r"'a\nb:1'"),
        ("a\0b:1", r"'a\x00b:1'"),
        ("a..b:1", "'a..b:1'"),
        ("x" * 64 + ":1", "'xxx"),
        ("a:1,b", "'b'"),
        ("'a':1", "\"'a':1\""),
    ],
)
def test_what_is_no_address_of_a_broker_is_refused_at_once(brokers: str, found: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(brokers=brokers)
    text = str(raised.value)
    assert text.startswith(f"brokers: found {found}")
    assert "expected host:port[,host:port...]" in text
    assert "\n" not in text
    assert len(text) < 300
    assert raised.value.exit_code == 78


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"brokers: found '\.\.\.@kafka:9092'") as raised:
        load(brokers=f"user:{SECRET}@kafka:9092")
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", str(IPv4Address(0)), "::", "::1", "localhost", "worker-1.example.org"])
def test_addresses_of_the_health_server(host: str) -> None:
    assert load(web_host=host).web_host == host


@pytest.mark.parametrize(
    "host",
    ["", " ", "0", "0.0", "0x0", "00.0.0.0", "*", "a:1", "http://a", "a b", "a..b", "x" * 64, "a\0b", "<broadcast>"],
)
def test_a_health_server_on_all_interfaces_is_asked_for_by_name(host: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(web_host=host)
    text = str(raised.value)
    assert text.startswith("web_host: found ")
    assert ascii(host)[:20] in text
    assert "expected a host name or address; 0.0.0.0 or :: for all addresses of this machine" in text


def secured(**values: object) -> Settings:
    return load(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password=SECRET,
        ssl_cafile="ca.pem",
        **values,
    )


def test_sasl_ssl_reaches_the_clients(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    given = client_arguments(secured())
    context = given.pop("ssl_context")
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert given == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": SECRET,
    }


def test_a_clients_certificate_needs_its_key(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    one, other = ca.issue_cert("one.example.org"), ca.issue_cert("other.example.org")
    one.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    one.private_key_pem.write_to_path(tmp_path / "k.pem")
    other.private_key_pem.write_to_path(tmp_path / "wrong.pem")
    client_arguments(secured(ssl_certfile="c.pem", ssl_keyfile="k.pem"))
    for key in ("wrong.pem", "absent.pem"):
        with pytest.raises(SettingsError, match=r"ssl_certfile, ssl_keyfile: c.pem and"):
            client_arguments(secured(ssl_certfile="c.pem", ssl_keyfile=key))


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\x00\xff" * 100])
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=r"ssl_cafile: ca.pem"):
        client_arguments(secured())


@pytest.mark.parametrize("content", [None, b"", b"two words", b"t\xc3\xb6ken", b"x" * (65 << 10), b"a\x01auth=b"])
def test_a_file_without_a_token_is_named_and_not_shown(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(BrokerError, match="sasl_token_file: ") as raised:
        security.token(tmp_path / "token")
    assert "two words" not in str(raised.value)


def test_a_token_is_read_again_for_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    settings = load(security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_token_file=file)
    provider = client_arguments(settings)["sasl_oauth_token_provider"]
    assert provider.token() == "one"
    file.write_text("two\n")
    assert provider.token() == "two"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sasl_mechanism": "PLAIN", "sasl_username": "u"}, "sasl_password: "),
        ({"sasl_mechanism": "SCRAM-SHA-256", "sasl_password": SECRET}, "sasl_username: "),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_username": "u", "sasl_password": SECRET}, "sasl_token_file: "),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism: "),
    ],
)
def test_what_a_mechanism_needs_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        load(security_protocol="SASL_SSL", **values)
    assert SECRET not in str(raised.value)


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


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_refused_on_a_command_line(name: str) -> None:
    done = CliRunner().invoke(app, ["--set", f"{name}={SECRET}", "topics", "check"])
    assert isinstance(done.exception, SettingsError)
    assert f"{name}: must not be on the command line" in str(done.exception)
    assert SECRET not in str(done.exception) + done.output


def test_every_secret_is_one_of_those_that_a_command_line_refuses() -> None:
    assert {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr} == set(SECRETS)


def test_a_secret_is_not_shown() -> None:
    settings = secured(ssl_keypassword=SECRET)
    for shown in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump())):
        assert SECRET not in shown
    with pytest.raises(SettingsError) as raised:
        secured(partitions=0)
    assert SECRET not in str(raised.value)


def test_a_secret_of_a_wrong_type_is_not_shown() -> None:
    with pytest.raises(SettingsError) as raised:
        load(sasl_password=[SECRET])
    assert "sasl_password" in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_secret_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "freshet_sasl_password").write_text(SECRET + "\n")
    monkeypatch.setenv("FRESHET_SECRETS", str(tmp_path))
    assert load().sasl_password.get_secret_value() == SECRET


# settings that contradict each other

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


@pytest.mark.parametrize(("values", "said"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused_with_both_and_what_to_do(
    values: dict[str, object], said: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**values)
    assert said in str(raised.value)
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


# how long work may stand


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


def test_every_setting_is_read_somewhere() -> None:
    root = ROOT
    files = [*(root / "stream").rglob("*.py"), *(root / "deploy").rglob("*.py")]
    read = {name for file in files for name in re.findall(r"(?<=settings\.)\w+|(?<=self\.)[a-z]\w+", file.read_text())}
    assert set(Settings.model_fields) - read == set()


@pytest.mark.parametrize("source", ["flag", "file"])
def test_a_setting_that_is_gone_is_told_with_what_took_its_place(tmp_path: Path, source: str) -> None:
    (tmp_path / "freshet.toml").write_text("comment_tokens = 64" if source == "file" else "")
    with pytest.raises(
        SettingsError, match=r"^comment_tokens: there is no such setting any more: .*bundle.*leave it out"
    ):
        load(**({"comment_tokens": 64} if source == "flag" else {}))
