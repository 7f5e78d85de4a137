"""What scripts.site finds in a built site: dead links and anchors, and what pages fetch from other hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.site import faults


def site(folder: Path, body: str, head: str = "") -> list[str]:
    """The faults of a site of two pages and a style sheet, one of which has this body."""
    (folder / "deep").mkdir()
    (folder / "index.html").write_text(f'<html><head>{head}</head><body id="start">{body}</body></html>', "utf-8")
    (folder / "deep" / "page.html").write_text('<h1 id="größe">x</h1><a href="../index.html#start">y</a>', "utf-8")
    (folder / "style.css").write_text("body {color: red}", "utf-8")
    return faults(folder)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="deep/page.html">x</a>',
        '<a href="deep/page.html?q=a#gr%C3%B6%C3%9Fe">x</a>',
        '<a href="#start">x</a><a href="#">x</a><a href=".">x</a><a href="/index.html">x</a><a href="">x</a>',
        '<a href="https://example.org/x#y">x</a><a href="mailto:a@example.org">x</a>',
        '<img src="data:image/png;base64,AA=="><img src="style.css">',
        '<link rel="canonical" href="https://example.org/">',
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#start"/></svg>',
    ],
)
def test_a_good_page_has_no_fault(tmp_path: Path, body: str) -> None:
    assert site(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="schemas/click.json">x</a>', "schemas/click.json: there is no such file"),
        ('<a href="deep">x</a>', "deep: there is no such file"),
        ('<a href="deep/page.html#absent">x</a>', "deep/page.html#absent: there is no such anchor"),
        ('<a href="#absent">x</a>', "#absent: there is no such anchor"),
        ('<a href="../README.md">x</a>', "../README.md: it leaves the site"),
        ('<img src="absent.png">', "absent.png: there is no such file"),
        ('<script src="absent.js"></script>', "absent.js: there is no such file"),
        ('<link rel="stylesheet" href="absent.css">', "absent.css: there is no such file"),
    ],
)
def test_a_dead_link_is_found(tmp_path: Path, body: str, fault: str) -> None:
    assert site(tmp_path, body) == [f"index.html: {fault}"]


@pytest.mark.parametrize(
    "body",
    [
        '<script src="{}"></script>',
        '<link rel="stylesheet" href="{}">',
        '<link rel="preconnect" href="{}" crossorigin>',
        '<link rel="alternate stylesheet" href="{}">',
        '<link rel="shortcut icon" href="{}">',
        '<img src="style.css" srcset="style.css 1x, {} 2x">',
        '<iframe src="{}"></iframe>',
        '<object data="{}"></object>',
        '<video><source src="{}"></video>',
        '<svg><image href="{}"/><use xlink:href="{}"/></svg>',
        "<style>@import '{}';</style>",
        '<p style="background: url({})">x</p>',
    ],
)
@pytest.mark.parametrize("address", ["https://unpkg.com/iframe-worker/shim", "//example.org/a.js"])
def test_what_is_fetched_from_another_host_is_found(tmp_path: Path, body: str, address: str) -> None:
    assert site(tmp_path, body.replace("{}", address)) == [f"index.html: {address}: it is fetched from another host"]


def test_what_a_style_sheet_fetches_from_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "fonts.css").write_text("@font-face {src: url('https://fonts.example.org/a.woff2')}", "utf-8")
    assert site(tmp_path, "") == ["fonts.css: https://fonts.example.org/a.woff2: it is fetched from another host"]
