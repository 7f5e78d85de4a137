"""Every client gets the credentials of the settings."""

from __future__ import annotations

from pathlib import Path

from deploy.clients.arguments import client_arguments


def test_sasl_ssl_reaches_every_client(tmp_path: Path) -> None:
    from stream.kafka.app import credentials
    from stream.kafka.clients import consumer_arguments
    from stream.settings import load

    settings = load(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="ann", sasl_password="s3cret"
    )
    faust = credentials(settings)
    assert (faust.protocol.value, faust.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (faust.username, faust.password) == ("ann", "s3cret")
    assert faust.ssl_context.check_hostname
    tools = client_arguments(settings)
    assert (tools["security_protocol"], tools["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (tools["sasl_plain_username"], tools["sasl_plain_password"]) == ("ann", "s3cret")
    items = consumer_arguments(settings)
    assert (items["security_protocol"], items["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (items["sasl_plain_username"], items["sasl_plain_password"]) == ("ann", "s3cret")
    assert items["ssl_context"].check_hostname
    assert "s3cret" not in repr(settings) + str(faust)
    assert credentials(load()) is None


def test_ssl_without_sasl() -> None:
    from stream.kafka.app import credentials
    from stream.settings import load

    assert credentials(load(security_protocol="SSL")).protocol.value == "SSL"
