"""Install requirements.lock and this repository into a virtual environment: `python -m scripts.environment FOLDER`.

With `--lock FILE` that lock in its place, and nothing of this repository: an environment beside ours, for what is
compared.

Every package is checked against the lock's SHA-256s. uv installs them, itself checked by hash; where it cannot be had,
pip does, slower. Both follow the user's pip configuration (index, find-links, certificate, proxy variables).
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
# pip's name of a setting -> uv's environment variable, what separates several values there
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
    """Setting -> value from the output of `pip config list`; the environment wins over [install], that over
    [global]."""
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith(f"{section}."):
                found[name[len(section) + 1 :]] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The process environment that makes uv do what pip would do; what `given` says for uv itself stays."""
    translated = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip: any index may serve a file, its hash decides
    for name, value in settings.items():
        if name in TRANSLATED:
            variable, separator = TRANSLATED[name]
            translated[variable] = separator.join(value.split())
    return translated | dict(given)


def without_torch(lock: str) -> tuple[str, str]:
    """(the lock less torch and its CUDA packages, torch's version)"""
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
    """Exit code 0, or that of the command that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the virtual environment; made where it is not there")
    parser.add_argument("--torch-index", default="", help="take torch, unhashed, from this index: one with CPU builds")
    parser.add_argument("--lock", type=Path, help="another lock, installed alone")
    asked = parser.parse_args(arguments)
    try:
        install(asked.folder, asked.torch_index, asked.lock)
    except subprocess.CalledProcessError as error:
        print(f"the environment could not be made: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return int(error.returncode) or 1
    return 0


def install(folder: Path, torch_index: str = "", alone: Path | None = None) -> None:
    """Make the environment. alone: a lock that is installed in place of ours. Raises CalledProcessError for the command
    that failed."""
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
        print("uv cannot be had; pip installs, which takes longer", file=sys.stderr)
        command = [*pip, "install"]
    lock = alone or LOCK
    if torch_index and not alone:
        text, version = without_torch(LOCK.read_text())
        lock = folder / "requirements-without-torch.lock"
        lock.write_text(text)
        run([*command, "--no-deps", "--index-url", torch_index, f"torch=={version}"], environment)
    run([*command, "--require-hashes", "--no-deps", "-r", lock], environment)
    if not alone:
        # setuptools is in the lock: nothing unchecked is fetched to build our own package
        run([*command, "--no-deps", "--no-build-isolation", "-e", ROOT], environment)


def run(command: Iterable[Path | str], environment: Mapping[str, str] | None = None) -> None:
    subprocess.run([str(part) for part in command], check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
