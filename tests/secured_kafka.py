"""An embedded Kafka as it should be run: SASL_SSL for every client, ACLs that deny by default, and listeners whose
certificates are wrong in one way each."""

from __future__ import annotations

import base64
import datetime
import json
import re
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trustme
from cryptography.hazmat.primitives import serialization
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.clients.arguments import client_arguments
from deploy.embedded_kafka import EmbeddedKafka, free_port
from stream.settings import Settings, load
from tests.worker_process import until

CERTIFICATES: Final = ("good", "expired", "stranger", "unknown")
"""of the listeners: right; out of date; for another host; of an authority that nobody trusts"""
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
USERS: Final = ("admin", "worker", "producer", "consumer", "verifier", "operator", "gateway", "tally")
KEY_PASSWORD: Final = "canary-key-pw"
_SECURITY: Final = "org.apache.kafka.common.security"


def password(user: str) -> str:
    """The password of a user; one canary, so that a log can be searched for all of them."""
    return f"canary-{user}-pw"


@dataclass(frozen=True)
class Right:
    """One ACL. kind: topic, group, transactional_id or cluster; operation as Kafka names it: Read, Write, DescribeConfigs, ..."""

    kind: str
    name: str
    operation: str
    prefixed: bool = False


class SecuredKafka(EmbeddedKafka):
    """Its plain listener is the broker's own; clients come to `address(certificate)` by SASL_SSL."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ports = {name: free_port() for name in CERTIFICATES}
        self.ca = self.directory / "ca.pem"
        self._certify()

    def address(self, certificate: str = "good") -> str:
        return f"127.0.0.1:{self.ports[certificate]}"

    def settings(
        self, user: str = "admin", mechanism: str = "PLAIN", certificate: str = "good", **values: Any
    ) -> Settings:
        """Settings of one user; `values` come on top."""
        secret: dict[str, Any] = {"sasl_username": user, "sasl_password": password(user)}
        if mechanism == "OAUTHBEARER":
            secret = {"sasl_token_file": self.token(user)}
        given = {
            "brokers": self.address(certificate),
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "ssl_cafile": self.ca,
            "ssl_certfile": self.client_certificate,
            "ssl_keyfile": self.client_key,
            "ssl_keypassword": KEY_PASSWORD,
        }
        return load(**given | secret | values)

    def secrets(self, user: str) -> Path:
        """A folder for FRESHET_SECRETS."""
        folder = self.directory / f"secrets-{user}"
        folder.mkdir(exist_ok=True)
        (folder / "freshet_sasl_password").write_text(password(user) + "\n")
        (folder / "freshet_ssl_keypassword").write_text(KEY_PASSWORD + "\n")
        return folder

    def token(self, user: str, seconds: float = 3600) -> Path:
        """A file with an unsecured JSON web token, as the broker's own validator takes it."""
        now = time.time()
        parts = ({"alg": "none"}, {"sub": user, "iat": now, "exp": now + seconds, "canary": password(user)})
        encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        file = self.directory / f"token-{user}"
        file.write_text(".".join(encoded) + ".\n")
        return file

    def allow(self, user: str, *rights: Right) -> None:
        with self._admin() as client:
            client.create_acls([_acl(user, right) for right in rights])
            self._until(client, user, rights, present=True)

    def revoke(self, user: str, *rights: Right) -> None:
        with self._admin() as client:
            client.delete_acls([_filter(user, right) for right in rights])
            self._until(client, user, rights, present=False)

    @staticmethod
    def _until(client: KafkaAdminClient, user: str, rights: tuple[Right, ...], present: bool) -> None:
        """Wait until the broker follows: the controller answers first, the broker's authorizer reads its log later."""

        def followed() -> bool:
            return all(bool(client.describe_acls(_filter(user, right))[0]) == present for right in rights)

        until(followed, 30, f"the broker {'allows' if present else 'denies'} {user} {rights}")

    def _admin(self) -> AbstractContextManager[KafkaAdminClient]:
        return closing(KafkaAdminClient(**client_arguments(self.settings())))

    def _certify(self) -> None:
        ours, other = trustme.CA(), trustme.CA()
        ours.cert_pem.write_to_path(self.ca)
        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        hosts = ("127.0.0.1", "localhost")
        issued = {
            "good": ours.issue_cert(*hosts),
            "expired": ours.issue_cert(*hosts, not_before=past - datetime.timedelta(days=9), not_after=past),
            "stranger": ours.issue_cert("kafka.example.org"),
            "unknown": other.issue_cert(*hosts),
        }
        client = ours.issue_cert("worker@example.org")
        self.client_certificate, self.client_key = self.directory / "client.pem", self.directory / "client.key"
        self.client_certificate.write_bytes(client.cert_chain_pems[0].bytes())
        self.client_key.write_bytes(
            serialization.load_pem_private_key(client.private_key_pem.bytes(), None).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(KEY_PASSWORD.encode()),
            )
        )
        for name, leaf in issued.items():
            key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
            pem = key.private_bytes(  # Kafka reads PKCS #8 only
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
            (self.directory / f"{name}.pem").write_bytes(pem + chain)

    def _write(self, port: int) -> None:
        super()._write(port)
        file = self.directory / "server.properties"
        properties = dict(line.split("=", 1) for line in file.read_text().splitlines())
        names = {name: name.upper() for name in CERTIFICATES}
        listeners = [f"{names[name]}://127.0.0.1:{self.ports[name]}" for name in CERTIFICATES]
        for setting in ("listeners", "advertised.listeners"):
            properties[setting] = ",".join([properties[setting], *listeners])
        protocols = [f"{name}:SASL_SSL" for name in names.values()]
        properties["listener.security.protocol.map"] = ",".join(
            [properties["listener.security.protocol.map"], *protocols]
        )
        properties |= {
            "inter.broker.listener.name": "PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS;User:admin",  # ANONYMOUS: the broker itself, on its own plain listener
        }
        users = " ".join(f'user_{user}="{password(user)}"' for user in USERS)
        for name in CERTIFICATES:
            prefix = f"listener.name.{name}"
            properties |= {
                f"{prefix}.ssl.keystore.type": "PEM",
                f"{prefix}.ssl.keystore.location": str(self.directory / f"{name}.pem"),
                f"{prefix}.ssl.truststore.type": "PEM",
                f"{prefix}.ssl.truststore.location": str(self.ca),
                f"{prefix}.ssl.client.auth": "requested",
                f"{prefix}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
                f"{prefix}.plain.sasl.jaas.config": f"{_SECURITY}.plain.PlainLoginModule required {users};",
                f"{prefix}.oauthbearer.sasl.jaas.config": f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required "
                'unsecuredLoginStringClaim_sub="broker";',
            }
            for scram in ("scram-sha-256", "scram-sha-512"):
                properties[f"{prefix}.{scram}.sasl.jaas.config"] = f"{_SECURITY}.scram.ScramLoginModule required;"
        file.write_text("\n".join(f"{name}={value}" for name, value in properties.items()) + "\n")

    def start(self) -> SecuredKafka:
        super().start()
        with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as plain:
            for way in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # a user once a request
                given = [UserScramCredentialUpsertion(user, way, password(user)) for user in USERS]
                refused = {user: why for user, why in plain.alter_user_scram_credentials(given).items() if why}
                assert not refused, refused
        return self


def _acl(user: str, right: Right) -> ACL:
    return ACL(f"User:{user}", "*", _operation(right), ACLPermissionType.ALLOW, _pattern(right))


def _filter(user: str, right: Right) -> ACLFilter:
    return ACLFilter(f"User:{user}", "*", _operation(right), ACLPermissionType.ALLOW, _pattern(right))


def _operation(right: Right) -> ACLOperation:
    return ACLOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", right.operation).upper()]


def _pattern(right: Right) -> ResourcePattern:
    pattern = ACLResourcePatternType.PREFIXED if right.prefixed else ACLResourcePatternType.LITERAL
    return ResourcePattern(ResourceType[right.kind.upper()], right.name, pattern)
