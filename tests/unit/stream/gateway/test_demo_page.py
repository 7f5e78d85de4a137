"""The files of the demo page: nothing inline, nothing of other hosts, no text read as HTML, enough contrast."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from stream.gateway.demo_page import POLICY, DemoPage, File
from stream.gateway.problems import ProblemError
from tests.conftest import ROOT

FOLDER = ROOT / "stream" / "gateway" / "browser"
TEXTS = {path.name: path.read_text("utf-8") for path in FOLDER.iterdir()}
CSS = TEXTS["page.css"]


def body(name: str | None = None) -> str:
    found = DemoPage().answer(name).body
    assert isinstance(found, bytes)
    return found.decode()


def test_the_page_and_each_of_its_files_is_served_and_no_other() -> None:
    assert set(TEXTS) == {"index.html", *get_args(File)}
    assert body() == TEXTS["index.html"]
    for name in get_args(File):
        assert body(name) == TEXTS[name]
    for name in ("index.html", "../api.py", "", "page.css/"):
        with pytest.raises(ProblemError, match="no such file"):
            DemoPage().answer(name)


def test_the_policy_allows_files_of_this_server_only() -> None:
    rules = dict(part.strip().split(" ", 1) for part in POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert rules["require-trusted-types-for"] == "'script'"
    assert {rules[name] for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types")} == {"'none'"}
    assert DemoPage().answer().headers["Content-Security-Policy"] == POLICY


def test_nothing_is_inline_and_nothing_comes_from_another_host() -> None:
    html = TEXTS["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert re.findall(r"<script[^>]*>", html) == ['<script type="module" src="demo/main.js">']
    for name, text in TEXTS.items():
        addresses = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert (name, addresses) == (name, set())
        assert not re.search(r"(?:src|href)=\"//|url\(", text)


def test_no_text_is_read_as_html_or_run() -> None:
    for name, text in TEXTS.items():
        if name.endswith(".js"):
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|localStorage",
                text,
            )


def test_every_element_that_the_scripts_name_is_on_the_page() -> None:
    there = set(re.findall(r'\sid="([\w-]+)"', TEXTS["index.html"]))
    made = {"moved-latency"}
    named = {
        found for name, text in TEXTS.items() if name.endswith(".js") for found in re.findall(r'by\("([\w-]+)"\)', text)
    }
    assert named - there == made


def colours(css: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", css))


LIGHT = colours(CSS[: CSS.index("@media")])
DARK = colours(CSS[CSS.index("@media") : CSS.index("* {")])


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_aa(theme: dict[str, str]) -> None:
    """Text 4.5 to 1; the edges of what can be operated, and the filled part of a bar, 3 to 1."""
    assert set(theme) == set(LIGHT)
    texts = [(ink, back) for ink in ("ink", "soft", "mark") for back in ("back", "card", "tint")]
    texts += [(ink, "card") for ink in ("up", "down", "new", "bad")] + [("on-mark", "mark")]
    ratios = {pair: contrast(theme[pair[0]], theme[pair[1]]) for pair in texts}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < 4.5} == {}
    edges = {
        pair: contrast(theme[pair[0]], theme[pair[1]])
        for pair in (("edge", "card"), ("mark", "line"), ("mark", "card"))
    }
    assert {pair: ratio for pair, ratio in edges.items() if ratio < 3} == {}
