"""The examples run as their docstrings say, and freshet reads what they write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.data import read
from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def test_the_shop_of_the_tutorial_is_read(tmp_path: Path) -> None:
    subprocess.run([sys.executable, EXAMPLES / "make_shop.py", "shop"], cwd=tmp_path, check=True, timeout=60)
    data = read(tmp_path / "shop")
    assert (len(data.events), len(data.items)) == (300 * 24, 120)
    titles = {item.item: item.title for item in data.items}
    assert (titles["K-03"], titles["B-10"]) == ("Wooden spoon, red", "Saddle, green")
    assert {tuple(item.categories or ()) for item in data.items} == {
        ("garden",),
        ("kitchen",),
        ("office",),
        ("bicycle",),
    }
