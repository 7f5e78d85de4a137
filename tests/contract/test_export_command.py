"""`freshet export`, from a saved run to a bundle that loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from models.training.run import save_run
from stream.core.errors import BundleError, DataError
from stream.inference.bundle import current, load
from stream.inference.models import open_models
from tests.bundles import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_run(tiny_run(20), folder)
    return folder


def test_a_run_becomes_the_current_bundle(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundles"
    result = CliRunner().invoke(app, ["export", str(run), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    bundle = load(current(out))
    assert about["bundle"] == bundle.id
    assert about["dims"]["items"] == 20
    assert all(parity["max"] <= parity["tolerance"] for parity in about["parity"].values())

    item = bundle.folder / "item.onnx"
    item.write_bytes(item.read_bytes()[:-1] + b"?")  # changed after it was verified, before it is used
    with pytest.raises(BundleError, match=r"item\.onnx"):
        bundle.read("item.onnx")
    step = bundle.folder / "step.onnx"
    step.unlink()
    with pytest.raises(BundleError, match=r"step\.onnx"):
        open_models(bundle, "cpu")


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--out", str(tmp_path / "bundles")])
    assert isinstance(result.exception, DataError)
    assert str(tmp_path) in str(result.exception)
    assert not (tmp_path / "bundles").exists()


def test_a_folder_that_cannot_be_written_is_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "file" / "bundles")])
    assert isinstance(result.exception, BundleError)
    assert "cannot be written" in str(result.exception)
