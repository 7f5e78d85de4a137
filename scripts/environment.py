"""Install requirements.lock and this repository into a virtual environment: `python -m scripts.environment FOLDER`.

With `--lock FILE`, it installs that lock instead, and nothing of this repository: a separate environment for software
that freshet is compared with.

Every package is checked against the lock's SHA-256s. uv, which is itself checked by hash, installs them. If uv is not
available, pip does, but slower. Both follow the user's pip configuration (index, find-links, certificate, proxy
variables).
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LOCK: Final = ROOT / "requirements.lock"
UV_LOCK: Final = Path(__file__).with_name("uv.lock")
# pip's name of a setting -> uv's environment variable, and what separates several values in it
TRANSLATED: Final = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
CUDA_TORCH: Final = re.compile(r"(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==")


def pip_settings(listing: str) -> dict[str, str]:
    """Return setting -> value from the output of `pip config list`.

    The environment takes precedence over [install], and [install] over [global].
    """
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith(f"{section}."):
                found[name[len(section) + 1 :]] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the process environment with which uv does what pip would do. uv's own variables in `given` are kept."""
    translated = {
        "UV_INDEX_STRATEGY": "unsafe-best-match"
    }  # as with pip: any index may serve a file, and its hash decides
    for name, value in settings.items():
        if name in TRANSLATED:
            variable, separator = TRANSLATED[name]
            translated[variable] = separator.join(value.split())
    return translated | dict(given)


def without_torch(lock: str) -> tuple[str, str]:
    """Return (the lock without torch and its CUDA packages, torch's version)."""
    kept: list[str] = []
    version = ""
    dropping = False
    for line in lock.splitlines(keepends=True):
        if line[:1].isalnum():
            dropping = CUDA_TORCH.match(line) is not None
            if line.startswith("torch=="):
                version = line.split("==")[1].split()[0]
        if not dropping:
            kept.append(line)
    return "".join(kept), version


def main(arguments: list[str] | None = None) -> int:
    """Run the script. Returns exit code 0, or that of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the virtual environment; created if it does not exist")
    parser.add_argument(
        "--torch-index", default="", help="install torch, without a hash check, from this index of CPU builds"
    )
    parser.add_argument("--lock", type=Path, help="install only the packages of this lock")
    asked = parser.parse_args(arguments)
    try:
        install(asked.folder, asked.torch_index, asked.lock)
    except subprocess.CalledProcessError as error:
        print(f"cannot create the environment, this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return int(error.returncode) or 1
    return 0


def install(folder: Path, torch_index: str = "", alone: Path | None = None) -> None:
    """Create the environment.

    Args:
        folder: The virtual environment.
        torch_index: An index from which torch is installed, without a hash check; "" for none.
        alone: A lock that is installed instead of ours.

    Raises:
        CalledProcessError: A command failed.
    """
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", folder])
    pip: list[Path | str] = [python, "-m", "pip", "--disable-pip-version-check"]
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False).stdout
    environment = uv_environment(pip_settings(listed), os.environ)
    bootstrap: list[Path | str] = [*pip, "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", UV_LOCK]
    if subprocess.run(bootstrap, check=False).returncode == 0:
        command: list[Path | str] = [folder / "bin" / "uv", "pip", "install", "--python", python]
    else:
        print("uv is not available; installing with pip, which takes longer", file=sys.stderr)
        command = [*pip, "install"]
    lock = alone or LOCK
    if torch_index and not alone:
        text, version = without_torch(LOCK.read_text())
        lock = folder / "requirements-without-torch.lock"
        lock.write_text(text)
        run([*command, "--no-deps", "--index-url", torch_index, f"torch=={version}"], environment)
    run([*command, "--require-hashes", "--no-deps", "-r", lock], environment)
    if not alone:
        # setuptools is in the lock, so nothing unchecked is downloaded to build our own package
        run([*command, "--no-deps", "--no-build-isolation", "-e", ROOT], environment)


def run(command: Iterable[Path | str], environment: Mapping[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
