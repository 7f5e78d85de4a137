"""Build helm and kubeconform into FOLDER/bin by `go install`, pinned, without root: `python -m deploy.tools.kubernetes FOLDER`.

Go checks every module by its checksum database, unless the user's own Go settings say otherwise. Exit code 0 also where
there is no Go or no network, with a line that says so: the tests that need the tools then skip with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

TOOLS: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.18.4",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.6.7",
}


def bring(target: Path) -> list[str]:
    """Build what is not there in its pinned version -> what is missing, each with its reason."""
    go = shutil.which("go")
    folder = (target / "bin").resolve()
    missing = []
    for name, module in TOOLS.items():
        mark = target / f"{name}.version"
        if (folder / name).is_file() and mark.is_file() and mark.read_text().strip() == module:
            continue
        if go is None:
            missing.append(f"{name}: no go here")
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


def main() -> int:
    """Exit code 0; what is missing is said on standard error."""
    target = Path(sys.argv[1])
    for reason in bring(target):
        print(f"cannot be fetched here, its tests will be skipped: {reason}", file=sys.stderr)
    print(f"helm and kubeconform, as far as they could be built, are in {target / 'bin'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
