"""Several processes that train one model: the same weights in all, one run written. Over gloo, on processors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.training.run import load_run

CHECK = """
import torch
from torch import nn
from models.training import distributed
with distributed.together() as writes:
    torch.manual_seed(distributed.rank())
    network, rows = nn.Linear(3, 1), torch.arange(18.0).reshape(6, 3) ** 0.5
    with torch.no_grad():
        [parameter.fill_(0.5) for parameter in network.parameters()]
    own = rows[:2] if writes else rows[2:]
    network(own).square().mean().backward()
    distributed.share_gradients(network, len(own))
    shared = network.weight.grad.clone()
    network.zero_grad()
    network(rows).square().mean().backward()
    torch.testing.assert_close(shared, network.weight.grad)
    assert distributed.agreed(distributed.rank() + 7) == 7
"""


def torchrun(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command],
        env=environment, cwd=cwd, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


def test_shared_gradients_are_those_of_all_states(tmp_path: Path) -> None:
    (tmp_path / "check.py").write_text(CHECK)
    ended = torchrun("check.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.long
@pytest.mark.timeout(180)
def test_two_processes_train_and_one_writes(tmp_path: Path) -> None:
    arguments = ("train", "generated", "--out", "run", "--epochs", "2", "--preset", "dense", "--json")
    ended = torchrun("-m", "deploy.cli", *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert json.loads(line)["epochs"] == 2
    assert load_run(tmp_path / "run").metrics == json.loads(line)["metrics"]
