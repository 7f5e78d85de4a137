"""The import contracts and lists of pyproject.toml hold, and a wrong import in any package breaks one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.imports import PACKAGES, faults
from tests.conftest import ROOT


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([command, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_every_import_is_in_the_lists() -> None:
    assert faults(ROOT) == []


WRONG = (
    ("deploy/clients/printable.py", "from scripts import reference", "deploy.clients.printable -> scripts"),
    ("stream/core/fold.py", "import torch", "stream.core.fold -> torch"),
    ("stream/core/state.py", "import rocksdict", "stream.core.state -> rocksdict"),
    ("stream/core/decoder.py", "import aiokafka", "stream.core.decoder -> aiokafka"),
    ("stream/core/messages.py", "from stream.settings import Settings", "stream.core.messages -> stream.settings"),
    (
        "stream/settings/settings.py",
        "from stream.inference import bundle",
        "stream.settings.settings -> stream.inference.bundle",
    ),
    (
        "stream/settings/toml_file.py",
        "from deploy.clients import admin",
        "stream.settings.toml_file -> deploy.clients.admin",
    ),
    (
        "stream/inference/bundle.py",
        "from stream.process import fatal",
        "stream.inference.bundle -> stream.process.fatal",
    ),
    ("stream/process/fatal.py", "from stream.kafka import clients", "stream.process.fatal -> stream.kafka.clients"),
    (
        "stream/kafka/lease.py",
        "from stream.observability import metrics",
        "stream.kafka.lease -> stream.observability.metrics",
    ),
    ("stream/observability/lag.py", "from stream.kafka import batch", "stream.observability.lag -> stream.kafka.batch"),
    (
        "stream/catalogue/catalogue.py",
        "from stream.pipeline import comments",
        "stream.catalogue.catalogue -> stream.pipeline.comments",
    ),
    (
        "stream/pipeline/poison.py",
        "from stream.catalogue import catalogue",
        "stream.pipeline.poison -> stream.catalogue.catalogue",
    ),
    ("stream/pipeline/comments.py", "from stream import app", "stream.pipeline.comments -> stream.app"),
    ("stream/app.py", "from stream import worker", "stream.app -> stream.worker"),
    ("stream/worker.py", "from stream.gateway import gateway", "stream.worker -> stream.gateway.gateway"),
    (
        "stream/pipeline/poison.py",
        "from stream.gateway import positions",
        "stream.pipeline.poison -> stream.gateway.positions",
    ),
    (
        "stream/gateway/positions.py",
        "from stream.pipeline import pipeline",
        "stream.gateway.positions -> stream.pipeline.pipeline",
    ),
    ("stream/gateway/api.py", "from stream import worker", "stream.gateway.api -> stream.worker"),
    (
        "stream/gateway/replica.py",
        "from stream.kafka import state_store",
        "stream.gateway.replica -> stream.kafka.state_store",
    ),
    ("stream/observability/logs.py", "import uvicorn", "stream.observability.logs -> uvicorn"),
    (
        "models/data/rows.py",
        "from stream.gateway import scorer",
        "models.data.rows -> stream.gateway.scorer",
    ),
    ("stream/kafka/batch.py", "from stream.kafka import consumer", "No cycles are allowed in stream.kafka"),
    ("models/data/split.py", "from models import interfaces", "models.data.split -> models.interfaces"),
    ("models/interfaces.py", "from models.metrics import ranks", "models.interfaces -> models.metrics.ranks"),
    ("models/metrics/ranks.py", "from models.network import network", "models.metrics.ranks -> models.network.network"),
    (
        "models/network/network.py",
        "from stream.pipeline import pipeline",
        "models.network.network -> stream.pipeline.pipeline",
    ),
    ("models/network/blocks.py", "from models.training import loss", "models.network.blocks -> models.training.loss"),
    (
        "models/text_rating/head.py",
        "from models.rating_prediction import table",
        "models.text_rating.head -> models.rating_prediction.table",
    ),
    (
        "models/rating_prediction/table.py",
        "from models.text_rating import corpus",
        "models.rating_prediction.table -> models.text_rating.corpus",
    ),
    (
        "models/training/loss.py",
        "from models.baselines import content",
        "models.training.loss -> models.baselines.content",
    ),
    (
        "models/baselines/content.py",
        "from models.evaluation import compare",
        "models.baselines.content -> models.evaluation.compare",
    ),
    ("models/evaluation/compare.py", "from export import graphs", "models.evaluation.compare -> export.graphs"),
    ("export/graphs.py", "import deploy.clients.admin", "export.graphs -> deploy.clients.admin"),
    (
        "deploy/embedded_kafka/jars.py",
        "from deploy.clients import connect",
        "deploy.embedded_kafka.jars -> deploy.clients.connect",
    ),
    ("deploy/clients/connect.py", "from deploy.verify import report", "deploy.clients.connect -> deploy.verify.report"),
    (
        "deploy/dead_letters/reader.py",
        "from deploy.verify import report",
        "deploy.dead_letters.reader -> deploy.verify.report",
    ),
    (
        "deploy/verify/report.py",
        "from deploy.dead_letters import reader",
        "deploy.verify.report -> deploy.dead_letters.reader",
    ),
    (
        "deploy/verify/validator.py",
        "from stream.core.fold import advance",
        "deploy.verify.validator -> stream.core.fold",
    ),
    ("deploy/verify/keys.py", "from stream.core import decoder", "deploy.verify.keys -> stream.core.decoder"),
    (
        "deploy/verify/fencing.py",
        "from stream.core import fencing_log",
        "deploy.verify.fencing -> stream.core.fencing_log",
    ),
    (
        "deploy/verify/moved_records.py",
        "from stream.core.origin import origin",
        "deploy.verify.moved_records -> stream.core.origin",
    ),
    ("deploy/demo/folders.py", "from deploy.cli import bounds", "deploy.demo.folders -> deploy.cli.bounds"),
    ("stream/nons/x.py", "import deploy.cli", "stream/nons has modules and no __init__.py"),
    ("deploy/verify/nons/x.py", "import stream.core.decoder", "deploy/verify/nons has modules and no __init__.py"),
    (
        "stream/gateway/api.py",
        "from stream.kafka.state_writer import AIOKafkaProducer",
        "stream.gateway.api -> stream.kafka.state_writer",
    ),
    (
        "stream/kafka/credentials.py",
        "from stream.kafka import producer",
        "stream.kafka.clients -> stream.kafka.credentials -> stream.kafka.producer",
    ),
    ("stream/gateway/api.py", "import faust", "stream.gateway.api -> faust"),
    ("stream/inference/runtime.py", "import aiokafka", "stream.inference.runtime -> aiokafka"),
    ("stream/inference/models.py", "def late():\n    import mode", "stream.inference.models -> mode"),
    ("stream/core/fold.py", "import requests", "stream.core.fold -> requests"),
    ("stream/core/fold.py", "import http.client", "stream.core.fold -> http.client"),
    ("stream/core/fold.py", "import urllib.request", "stream.core.fold -> urllib.request"),
    ("stream/core/fold.py", "import multiprocessing", "stream.core.fold -> multiprocessing"),
    ("stream/core/fold.py", "import uvloop", "stream.core.fold -> uvloop"),
    ("stream/core/fold.py", "import confluent_kafka", "stream.core.fold -> confluent_kafka"),
    ("stream/core/fold.py", "import asyncio", "stream.core.fold -> asyncio"),
    ("stream/core/fold.py", "from importlib import import_module", "stream.core.fold -> importlib"),
    ("export/graphs.py", "import stream.worker", "export.graphs -> stream.worker"),
    ("models/data/rows.py", "from stream.catalogue import catalogue", "models.data.rows -> stream.catalogue.catalogue"),
    ("stream/worker.py", "import pytest", "stream.worker -> pytest"),
    ("stream/worker.py", "import sentence_transformers", "stream.worker -> sentence_transformers"),
    ("stream/worker.py", "import onnxscript", "stream.worker -> onnxscript"),
    ("stream/worker.py", "from tests import conftest", "stream.worker -> tests"),
)
"""(module, a line that must not stand there, what is said of it)"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of a copy with all of WRONG in it, and a package that has no layer."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "stream" / "kafka" / "state_writer.py").write_text("from aiokafka import AIOKafkaProducer\n")
    for module, line, _ in WRONG:
        (folder / module).parent.mkdir(exist_ok=True)
        with (folder / module).open("a") as file:
            file.write(f"\n{line}\n")
    (folder / "stream" / "unplaced").mkdir()
    (folder / "stream" / "unplaced" / "__init__.py").touch()
    done = lint_imports(folder)
    assert done.returncode != 0
    return " ".join([*done.stdout.split(), *faults(folder)])


@pytest.mark.parametrize(("module", "line", "expected"), WRONG)
def test_a_wrong_import_is_found(output: str, module: str, line: str, expected: str) -> None:
    assert expected in output


def test_a_package_without_a_layer_is_found(output: str) -> None:
    assert "stream.unplaced" in output


def test_an_entry_that_nothing_needs_is_found(tmp_path: Path) -> None:
    (tmp_path / "stream" / "core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "top.py"):
        (tmp_path / "stream" / name).touch()
    (tmp_path / "stream" / "core" / "fold.py").write_text("import json, numpy.typing\nfrom .. import top\n")
    lists = """[tool.freshet.imports]
third-party = {"stream.core" = ["numpy"]}
standard-library = {"stream.core" = ["json"]}
reaches = {"stream.core" = ["stream.top"]}
"""
    (tmp_path / "pyproject.toml").write_text(lists)
    assert faults(tmp_path) == []
    (tmp_path / "pyproject.toml").write_text(lists.replace('"]', '", "socket"]'))
    assert [fault.split(":")[0] for fault in faults(tmp_path)] == [
        "stream.core never imports socket", "stream.core never imports socket", "stream.core never reaches socket",
    ]  # fmt: skip
