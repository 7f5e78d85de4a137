"""Credentials and certificates: what each needs is named, and secrets stay secret."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from pydantic import SecretStr
from typer.testing import CliRunner

from deploy.cli.main import app
from deploy.clients.arguments import client_arguments
from stream.core.errors import BrokerError, SettingsError
from stream.settings import Settings, load, security
from stream.settings.settings import SECRETS

SECRET = "canary-7731"


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
    ("values", "message"),
    [
        ({"sasl_mechanism": "PLAIN", "sasl_username": "u"}, "sasl_password: "),
        ({"sasl_mechanism": "SCRAM-SHA-256", "sasl_password": SECRET}, "sasl_username: "),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_username": "u", "sasl_password": SECRET}, "sasl_token_file: "),
        ({"sasl_mechanism": "GSSAPI"}, "sasl_mechanism: "),
    ],
)
def test_what_a_mechanism_needs_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        load(security_protocol="SASL_SSL", **values)
    assert SECRET not in str(raised.value)


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
