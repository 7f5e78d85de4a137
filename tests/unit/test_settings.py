"""Settings: where they come from, what is refused and how it is said, and that secrets stay secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stream.errors import SettingsError
from stream.settings import Settings, load

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
        ({"colour": "red"}, "colour: "),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**values)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 78


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
    assert load(brokers="a:1,b:2").kafka_python() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "PLAINTEXT",
    }


def secured(**values: object) -> Settings:
    return load(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="u",
        sasl_password=SECRET,
        ssl_cafile="ca.pem",
        **values,
    )


def test_sasl_ssl_reaches_the_clients() -> None:
    assert secured().kafka_python() == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": SECRET,
        "ssl_cafile": "ca.pem",
    }
    both = secured(ssl_certfile="c.pem", ssl_keyfile="k.pem").kafka_python()
    assert (both["ssl_certfile"], both["ssl_keyfile"]) == ("c.pem", "k.pem")


def test_a_secret_is_not_shown() -> None:
    settings = secured()
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
