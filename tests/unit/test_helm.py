"""The Helm chart: helm takes it, Kubernetes' own schemas take what it renders, and it agrees with the worker.

helm and kubeconform come by `make tools`, the schemas by `pip install kubernetes-validate`; without them the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "freshet"
BUNDLE = ("--set", "bundle.initImage=registry.example.org/bundle:1")
ALL = (
    *BUNDLE, "--set", "serviceMonitor.enabled=true", "--set", "prometheusRule.enabled=true", "--set", "secretName=kafka",
    "--set", "prometheusRule.runbookUrl=https://git.example.org/runbook.md", "--set", "tlsSecretName=tls",
    "--set", "settings.micro_batch=1000000", "--set-string", "settings.rating_scale=[1\\, 5]",
)  # fmt: skip
KUBERNETES = "1.33.0"


def tool(name: str) -> str:
    found = os.environ.get(name.upper()) or shutil.which(name, path=str(ROOT / ".tools" / "bin")) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not there: make tools")
    return found


def helm(*words: str, code: int = 0) -> str:
    done = subprocess.run([tool("helm"), *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rendered(*words: str) -> dict[str, Any]:
    """Kind -> the object."""
    text = helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *words)
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one}


def refused(*words: str) -> str:
    return helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *words, code=1)


def test_helm_lints_it() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *BUNDLE)


def test_kubernetes_takes_what_it_renders(tmp_path: Path) -> None:
    """kubeconform by the schemas of kubernetes-validate; the operator's own kinds have none there and are left out."""
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        pytest.skip("kubernetes_validate is not installed: pip install kubernetes-validate")
    schemas = Path(package.origin).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    for name in (
        "_definitions",
        "service-v1",
        "serviceaccount-v1",
        "statefulset-apps-v1",
        "poddisruptionbudget-policy-v1",
    ):
        text = (schemas / f"{name}.json").read_text()  # their references are to a place of their own package
        (tmp_path / f"{name}.json").write_text(
            text.replace('"/api/_definitions.json', '"_definitions.json').replace('"$id"', '"x-id"')
        )
    file = tmp_path / "all.yaml"
    kubeconform = tool("kubeconform")
    for wrong, code in (("", 0), ("  replicass: 3\n", 1)):
        text = helm("template", "t", str(CHART), "--kube-version", KUBERNETES, *ALL)
        file.write_text(text.replace("  podManagementPolicy:", f"{wrong}  podManagementPolicy:"))
        done = subprocess.run(
            [kubeconform, "-strict", "-summary", "-skip", "ServiceMonitor,PrometheusRule",
             "-schema-location", f"{tmp_path}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", str(file)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "6 resources found" in done.stdout
        assert "Skipped: 2" in done.stdout


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
    ],
)
def test_wrong_values_are_named(words: tuple[str, ...], named: str) -> None:
    assert named in refused(*words)
