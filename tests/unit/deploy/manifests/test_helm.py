"""The Helm chart: helm takes it, Kubernetes' own schemas take what it renders, and it agrees with worker, gateway and tally.

helm, kubeconform and the Prometheus operator's definitions come by `make tools`; without them the tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stream.settings import Settings
from tests.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "freshet"
BUNDLE = ("--set", "bundle.initImage=registry.example.org/bundle:1")
ALL = (
    *BUNDLE, "--set", "serviceMonitor.enabled=true", "--set", "prometheusRule.enabled=true", "--set", "secretName=kafka",
    "--set", "prometheusRule.runbookUrl=https://git.example.org/runbook.md", "--set", "tlsSecretName=tls",
    "--set", "settings.micro_batch=1000000", "--set-string", "settings.rating_scale=[1\\, 5]",
    "--set", "gateway.enabled=true", "--set", "gateway.tokensSecretName=tokens", "--set", "gateway.secretName=kafka-gateway",
    "--set", "gateway.settings.serve_rate=50", "--set", "gateway.settings.micro_batch=64",
    "--set", "tally.enabled=true", "--set", "tally.secretName=kafka-tally", "--set", "tally.settings.tally_reach=5",
    "--set", "networkPolicy.enabled=true", "--set", "networkPolicy.monitoring[0].podSelector.matchLabels.app=prometheus",
    "--set", "networkPolicy.clients[0].podSelector.matchLabels.app=shop",
)  # fmt: skip
KUBERNETES = "1.33.0"
OPERATORS = ("ServiceMonitor", "PrometheusRule")


def tool(name: str) -> str:
    found = os.environ.get(name.upper()) or shutil.which(name, path=str(ROOT / ".tools" / "bin")) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not there: make tools")
    return found


def helm(*words: str, code: int = 0) -> str:
    done = subprocess.run([tool("helm"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rendered(*words: str, name: str = "t-freshet") -> dict[str, Any]:
    """Kind -> the object of a name: `t-freshet` are the workers', `-gateway` behind it the gateways', `-tally` the tally's."""
    text = helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *words)
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one and one["metadata"]["name"] == name}


def refused(*words: str) -> str:
    return helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *words, code=1)


def test_helm_lints_it() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *BUNDLE)


def judged(text: str, folder: Path, skipped: str, code: int) -> str:
    """What kubeconform says of it by the schemas in the folder; it must end with the code."""
    (folder / "all.yaml").write_text(text)
    done = subprocess.run(
        [tool("kubeconform"), "-strict", "-summary", "-skip", skipped,
         "-schema-location", f"{folder}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", str(folder / "all.yaml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "16 resources found" in done.stdout
    return done.stdout


def everything() -> str:
    return helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *ALL)


def test_kubernetes_takes_what_it_renders(tmp_path: Path) -> None:
    """kubeconform by the schemas of kubernetes-validate; the operator's own kinds have none there and are judged below."""
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    for name in (
        "_definitions",
        "service-v1",
        "serviceaccount-v1",
        "statefulset-apps-v1",
        "poddisruptionbudget-policy-v1",
        "deployment-apps-v1",
        "networkpolicy-networking-v1",
    ):
        text = (schemas / f"{name}.json").read_text()  # their references are to a place of their own package
        (tmp_path / f"{name}.json").write_text(
            text.replace('"/api/_definitions.json', '"_definitions.json').replace('"$id"', '"x-id"')
        )
    text = everything()
    for wrong, code in (("", 0), ("  replicass: 3\n", 1)):
        changed = text.replace("  podManagementPolicy:", f"{wrong}  podManagementPolicy:")
        assert "Skipped: 4" in judged(changed, tmp_path, ",".join(OPERATORS), code)


def test_the_prometheus_operator_takes_what_it_renders(tmp_path: Path) -> None:
    """kubeconform by the operator's own definitions of its kinds (scripts.kubernetes)."""
    for kind in OPERATORS:
        file = ROOT / ".tools" / "crds" / f"monitoring.coreos.com_{kind.lower()}s.yaml"
        if not file.is_file():
            pytest.skip("the operator's definitions are not there: make tools")
        (version,) = (one for one in yaml.safe_load(file.read_text())["spec"]["versions"] if one["name"] == "v1")
        schema = closed(version["schema"]["openAPIV3Schema"])
        (tmp_path / f"{kind.lower()}-monitoring-v1.json").write_text(json.dumps(schema))
    text, own = everything(), "Service,ServiceAccount,StatefulSet,Deployment,NetworkPolicy,PodDisruptionBudget"
    assert "Valid: 4, Invalid: 0" in judged(text, tmp_path, own, 0)
    for right, wrong, named in (
        ("    - port: web\n", "    - prot: web\n", "ServiceMonitor"),
        ("interval: 15s", "interval: 15 seconds", "ServiceMonitor"),
        ("{targetLabel: job, replacement: freshet}", "{targetLabel: job, action: rename}", "ServiceMonitor"),
        ("- alert:", "- alarm:", "PrometheusRule"),
        ("for: ", "for: about ", "PrometheusRule"),
        ("      expr: ", "      expression: ", "PrometheusRule"),
    ):
        assert right in text, right
        output = judged(text.replace(right, wrong, 1), tmp_path, own, 1)
        assert f"{named} t-freshet is invalid" in output, output


def closed(schema: Any) -> Any:
    """The schema of a definition, closed to fields that it does not name: the API server drops those in silence."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(of) for name, of in schema.items()}
    if isinstance(made.get("properties"), dict) and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def test_the_pod_agrees_with_the_worker() -> None:
    found = rendered(*ALL)
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > 30  # within which a worker is gone after SIGTERM
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsUser"] == 10001  # the image's
    assert worker["securityContext"]["readOnlyRootFilesystem"] is True
    env = {one["name"]: one["value"] for one in worker["env"]}
    assert {name.removeprefix("FRESHET_").lower() for name in env} <= {*Settings.model_fields, "secrets"}
    assert (env["FRESHET_MICRO_BATCH"], env["FRESHET_RATING_SCALE"]) == ("1000000", "[1, 5]")
    mounts = {one["mountPath"]: one for one in worker["volumeMounts"]}
    assert env["FRESHET_DATA_DIR"].startswith("/var/lib/freshet/")
    assert "readOnly" not in mounts["/var/lib/freshet"]
    assert mounts[env["FRESHET_BUNDLES"]]["readOnly"] is True
    assert mounts[env["FRESHET_SECRETS"]]["readOnly"] is True
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert worker["livenessProbe"]["httpGet"]["path"] == worker["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["relabelings"][0]["replacement"] == "freshet"
    rules = [rule for group in found["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    links = {rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule}
    assert all(link.startswith("https://git.example.org/runbook.md#freshet") for link in links)


def test_the_gateways_pod_agrees_with_the_gateway() -> None:
    found, workers = rendered(*ALL, name="t-freshet-gateway"), rendered(*ALL)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (gateway,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] > 30  # within which a gateway is gone after SIGTERM
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    workers_pod = workers["StatefulSet"]["spec"]["template"]["spec"]
    for shared in ("securityContext", "initContainers", "serviceAccountName"):
        assert pod[shared] == workers_pod[shared]
    assert gateway["securityContext"] == workers_pod["containers"][0]["securityContext"]
    env = {one["name"]: one["value"] for one in gateway["env"]}
    assert len(env) == len(gateway["env"])
    assert {name.removeprefix("FRESHET_").lower() for name in env} <= {*Settings.model_fields, "secrets"}
    assert (env["FRESHET_SERVE_RATE"], env["FRESHET_MICRO_BATCH"], env["FRESHET_RATING_SCALE"]) == (
        "50",
        "64",
        "[1, 5]",
    )
    mounts = {one["mountPath"]: one for one in gateway["volumeMounts"]}
    assert env["FRESHET_REPLICA_DIR"].startswith("/var/lib/freshet/")
    assert "readOnly" not in mounts["/var/lib/freshet"]
    for place in (env["FRESHET_BUNDLES"], env["FRESHET_SECRETS"], env["FRESHET_SERVE_TOKENS"].rpartition("/")[0]):
        assert mounts[place]["readOnly"] is True
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    assert secrets == {"tokens": "tokens", "secrets": "kafka-gateway", "tls": "tls"}
    assert {one["name"] for one in gateway["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
    (port,) = gateway["ports"]
    assert str(port["containerPort"]) == env["FRESHET_SERVE_PORT"]
    assert gateway["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    assert (
        gateway["livenessProbe"]["httpGet"]
        == gateway["startupProbe"]["httpGet"]
        == {"path": "/healthz", "port": port["name"]}
    )
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["relabelings"][0]["replacement"] == "freshet-gateway"


def test_the_tallys_pod_agrees_with_the_tally() -> None:
    found, workers = rendered(*ALL, name="t-freshet-tally"), rendered(*ALL)
    spec = found["StatefulSet"]["spec"]
    pod = spec["template"]["spec"]
    (tally,) = pod["containers"]
    assert spec["replicas"] == 1
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert pod["terminationGracePeriodSeconds"] > 30  # within which a tally is gone after SIGTERM
    assert pod["enableServiceLinks"] is False
    workers_pod = workers["StatefulSet"]["spec"]["template"]["spec"]
    for shared in ("securityContext", "initContainers", "serviceAccountName"):
        assert pod[shared] == workers_pod[shared]
    assert tally["securityContext"] == workers_pod["containers"][0]["securityContext"]
    assert tally["args"] == ["tally"]
    env = {one["name"]: one["value"] for one in tally["env"]}
    assert len(env) == len(tally["env"])
    assert {name.removeprefix("FRESHET_").lower() for name in env} <= {*Settings.model_fields, "secrets"}
    assert (env["FRESHET_TALLY_REACH"], env["FRESHET_RATING_SCALE"]) == ("5", "[1, 5]")
    mounts = {one["mountPath"]: one for one in tally["volumeMounts"]}
    assert env["FRESHET_TALLY_DIR"].startswith("/var/lib/freshet/")
    assert "readOnly" not in mounts["/var/lib/freshet"]
    for place in (env["FRESHET_BUNDLES"], env["FRESHET_SECRETS"]):
        assert mounts[place]["readOnly"] is True
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one}
    assert secrets == {"secrets": "kafka-tally", "tls": "tls"}
    claims = [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]]
    assert {one["name"] for one in tally["volumeMounts"]} == {*claims, *(one["name"] for one in pod["volumes"])}
    assert spec["serviceName"] == found["Service"]["metadata"]["name"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == tally["ports"][0]["name"]
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["relabelings"][0]["replacement"] == "freshet-tally"
    assert rendered(*BUNDLE, name="t-freshet-tally") == {}


def test_workers_gateways_and_tally_select_their_own_pods() -> None:
    names = {"t-freshet": "StatefulSet", "t-freshet-gateway": "Deployment", "t-freshet-tally": "StatefulSet"}
    all_found = {name: rendered(*ALL, name=name) for name in names}
    pods = {
        name: all_found[name][kind]["spec"]["template"]["metadata"]["labels"].items() for name, kind in names.items()
    }
    for name, found in all_found.items():
        selectors = [
            found[names[name]]["spec"]["selector"]["matchLabels"],
            found["Service"]["spec"]["selector"],
            found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ]
        if name != "t-freshet-tally":  # there is one, which may be moved
            selectors.append(found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
        for selector in selectors:
            assert [of for of, labels in pods.items() if selector.items() <= labels] == [name]
        services = found["Service"]["metadata"]["labels"].items()
        assert found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= services


def test_a_network_policy_lets_in_only_who_is_named() -> None:
    prometheus, shop = ({"podSelector": {"matchLabels": {"app": name}}} for name in ("prometheus", "shop"))
    for name, port, peers in (
        ("t-freshet", "web", [prometheus]),
        ("t-freshet-gateway", "api", [shop, prometheus]),
        ("t-freshet-tally", "web", [prometheus]),
    ):
        spec = rendered(*ALL, name=name)["NetworkPolicy"]["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        assert spec["ingress"] == [{"from": peers, "ports": [{"port": port, "protocol": "TCP"}]}]
        closed_to_all = rendered(
            *BUNDLE, "--set", "networkPolicy.enabled=true", "--set", "gateway.enabled=true", "--set",
            "gateway.tokensSecretName=tokens", "--set", "tally.enabled=true", name=name,
        )  # fmt: skip
        assert closed_to_all["NetworkPolicy"]["spec"]["ingress"] == []
    assert "NetworkPolicy" not in rendered(*BUNDLE)
    assert rendered(*BUNDLE, name="t-freshet-gateway") == {}


def test_the_chart_has_the_rules_as_they_are() -> None:
    assert (CHART / "files" / "rules.yml").read_bytes() == (ROOT / "deploy/prometheus/rules/freshet.yml").read_bytes()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "neither volume nor initImage"),
        ((*BUNDLE, "--set", "bundle.volume.emptyDir.medium=Memory"), "both volume and initImage"),
        ((*BUNDLE, "--set", "settings.sasl_password=x"), "sasl_password"),
        ((*BUNDLE, "--set", "terminationGracePeriodSeconds=20"), "terminationGracePeriodSeconds"),
        ((*BUNDLE, "--set", "replica=3"), "replica"),
        ((*BUNDLE, "--set", "settings.data_dir=/x"), "data_dir"),
        ((*BUNDLE, "--set", "gateway.enabled=true"), "tokensSecretName"),
        ((*BUNDLE, "--set", "gateway.settings.serve_tokens=/x"), "serve_tokens"),
        ((*BUNDLE, "--set", "gateway.replica=3"), "replica"),
        ((*BUNDLE, "--set", "tally.replicas=2"), "replicas"),
        ((*BUNDLE, "--set", "tally.settings.tally_dir=/x"), "tally_dir"),
    ],
)
def test_wrong_values_are_named(words: tuple[str, ...], named: str) -> None:
    assert named in refused(*words)
