"""The import contracts of pyproject.toml hold, and a wrong import in any package breaks one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("stream", "models", "export", "deploy")


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("stream/core/fold.py", "import torch", "stream serves alone"),
        ("stream/core/state.py", "import rocksdict", "the core of stream"),
        ("stream/core/decoder.py", "import aiokafka", "the core of stream"),
        ("stream/core/messages.py", "from stream.settings import Settings", "the layers of stream"),
        ("stream/settings/settings.py", "from stream.inference import bundle", "the layers of stream"),
        ("stream/settings/toml_file.py", "from deploy.clients import admin", "stream serves alone"),
        ("stream/inference/bundle.py", "from stream.process import fatal", "the layers of stream"),
        ("stream/process/fatal.py", "from stream.kafka import clients", "the layers of stream"),
        ("stream/kafka/lease.py", "from stream.observability import metrics", "the layers of stream"),
        ("stream/observability/lag.py", "from stream.kafka import batch", "the layers of stream"),
        ("stream/catalogue/catalogue.py", "from stream.pipeline import comments", "the layers of stream"),
        ("stream/pipeline/poison.py", "from stream.catalogue import catalogue", "the layers of stream"),
        ("stream/pipeline/comments.py", "from stream import app", "the layers of stream"),
        ("stream/app.py", "from stream import worker", "the layers of stream"),
        ("stream/kafka/batch.py", "from stream.kafka import consumer", "no circles of imports"),
        ("models/data/split.py", "from models import interfaces", "the layers of models"),
        ("models/interfaces.py", "from models.metrics import ranks", "the layers of models"),
        ("models/metrics/ranks.py", "from models.network import network", "the layers of models"),
        ("models/network/network.py", "from stream.pipeline import pipeline", "models sees the core"),
        ("models/network/blocks.py", "from models.training import loss", "the layers of models"),
        ("models/text_rating/head.py", "from models.rating_prediction import table", "the layers of models"),
        ("models/rating_prediction/table.py", "from models.text_rating import corpus", "the layers of models"),
        ("models/training/loss.py", "from models.baselines import content", "the layers of models"),
        ("models/baselines/content.py", "from models.evaluation import compare", "the layers of models"),
        ("models/evaluation/compare.py", "from export import graphs", "models sees the core"),
        ("export/graphs.py", "import deploy.clients.admin", "export knows models"),
        ("deploy/embedded_kafka/jars.py", "from deploy.clients import connect", "the layers of deploy"),
        ("deploy/clients/connect.py", "from deploy.verify import report", "the layers of deploy"),
        ("deploy/dead_letters/reader.py", "from deploy.verify import report", "the layers of deploy"),
        ("deploy/verify/report.py", "from deploy.dead_letters import reader", "the layers of deploy"),
        ("deploy/verify/validator.py", "from stream.core.fold import advance", "verify shares only"),
        ("deploy/verify/keys.py", "from stream.core import decoder", "verify shares only"),
        ("deploy/verify/fencing.py", "from stream.core import fencing_log", "verify shares only"),
        ("deploy/verify/moved_records.py", "from stream.core.origin import origin", "verify shares only"),
        ("deploy/demo/folders.py", "from deploy.cli import bounds", "the layers of deploy"),
        ("stream/unplaced/module.py", "", "the layers of stream"),
    ],
)
def test_a_wrong_import_is_found(copy: Path, module: str, line: str, broken: str) -> None:
    file = copy / module
    if new := not file.parent.exists():
        file.parent.mkdir()
        (file.parent / "__init__.py").touch()
    right = "" if new else file.read_text()
    try:
        file.write_text(f"{right}\n{line}\n")
        done = lint_imports(copy)
    finally:
        if new:
            shutil.rmtree(file.parent)
        else:
            file.write_text(right)
    assert done.returncode != 0
    assert [row for row in done.stdout.splitlines() if row.startswith(broken) and " BROKEN" in row]
