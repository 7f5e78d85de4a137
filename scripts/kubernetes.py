"""Build helm and kubeconform into FOLDER/bin with `go install`, pinned, without root: `python -m scripts.kubernetes
FOLDER`.

It also downloads the Prometheus operator's definitions of the kinds that the chart renders into FOLDER/crds, with
`go mod download`.

Go checks every module against its checksum database, unless the user's own Go settings say otherwise. The exit code is
0 even if there is no Go or no network, and a line reports that. The tests that need the tools are then skipped with
that reason.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1] / ".tools"
TOOLS: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.18.4",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7",
}
OPERATOR: Final = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
CRDS: Final = ("monitoring.coreos.com_servicemonitors.yaml", "monitoring.coreos.com_prometheusrules.yaml")


def bring(target: Path) -> list[str]:
    """Build the tools that are not there in their pinned version. Return what is missing, each with its reason."""
    go = shutil.which("go")
    folder = (target / "bin").resolve()
    missing = []
    for name, module in TOOLS.items():
        mark = target / f"{name}.version"
        if (folder / name).is_file() and mark.is_file() and mark.read_text().strip() == module:
            continue
        if go is None:
            missing.append(f"{name}: go is not installed")
            continue
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"GOBIN": str(folder)}
        done = subprocess.run([go, "install", module], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            missing.append(f"{name}: go install ended with {done.returncode}: {last[:200]}")
            continue
        mark.write_text(module + "\n")
    return missing


def bring_definitions(target: Path) -> str:
    """Download CRDS into target/crds if they are not there in their pinned version.

    Returns why they are missing, or "" if they are there.
    """
    folder, mark = target / "crds", target / "crds.version"
    if all((folder / name).is_file() for name in CRDS) and mark.is_file() and mark.read_text().strip() == OPERATOR:
        return ""
    if (go := shutil.which("go")) is None:
        return "crds: go is not installed"
    done = subprocess.run([go, "mod", "download", "-json", OPERATOR], capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout)  # its errors are there, too
    except ValueError:
        said = {"Error": (done.stderr.strip().splitlines() or ["no reason given"])[-1]}
    if "Dir" not in said:
        return f"crds: go mod download ended with {done.returncode}: {str(said.get('Error', 'no reason given'))[:200]}"
    source = Path(said["Dir"]) / "example" / "prometheus-operator-crd"
    folder.mkdir(parents=True, exist_ok=True)
    for name in CRDS:
        (folder / name).write_bytes((source / name).read_bytes())  # the module's own files are read-only
    mark.write_text(OPERATOR + "\n")
    return ""


def main() -> int:
    """Run the script. Returns exit code 0; what is missing is reported on standard error."""
    parser = argparse.ArgumentParser(prog="python -m scripts.kubernetes", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: %(default)s")
    target: Path = parser.parse_args().folder
    missing = bring(target)
    if reason := bring_definitions(target):
        missing.append(reason)
    for reason in missing:
        print(f"not available here, so its tests will be skipped: {reason}", file=sys.stderr)
    print(
        f"helm and kubeconform, if they could be built, are in {target / 'bin'}; the definitions are in {target / 'crds'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
