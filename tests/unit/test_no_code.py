"""Nothing that is read can run: no pickle, no eval, no YAML with tags, no `shell=True`, wherever the product reads files."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

ROOMS = ("stream", "export", "deploy", "models")
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "xml",
    "runpy",
    "code",
}
CALLS = {"eval", "exec", "compile"}


def offences(source: str) -> Iterator[str]:
    """What in a module could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {name}" for name in names if name.split(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in CALLS or called.split(".")[-1] in ("system", "popen", "read_pickle", "to_pickle"):
            yield f"{called}()"
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if given.get("shell", "False") != "False":
            yield "shell=True"
        if given.get("allow_pickle", "False") != "False":
            yield "allow_pickle"
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield "np.load without allow_pickle=False"
        if called in ("torch.load", "load_state_dict_from_url") and given.get("weights_only") != "True":
            yield f"{called} without weights_only=True"
        if "trust_remote_code" in given and given["trust_remote_code"] != "False":
            yield "trust_remote_code"


@pytest.mark.parametrize("room", ROOMS)
def test_what_is_read_cannot_run(room: str) -> None:
    found = {
        str(file.relative_to(ROOT)): list(offences(file.read_text("utf-8"))) for file in (ROOT / room).rglob("*.py")
    }
    assert len(found) > 5
    assert {file: what for file, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "eval(x)", "os.system(x)", "subprocess.run(x, shell=True)", "np.load(f)",
        "np.load(f, allow_pickle=True)", "torch.load(f)", "pl.read_pickle(f)", "model.load(n, trust_remote_code=x)",
    ],
)  # fmt: skip
def test_the_scan_sees(source: str) -> None:
    assert list(offences(source))
