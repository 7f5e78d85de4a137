"""Build the docs as a site in .site and check what was built: `python -m scripts.site`.

Zensical checks links from page to page. It does not check links to other files, and adds a script from another host
for searches in pages that are opened from the disk. So every link, anchor and file of the built site is checked here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).resolve().parents[1]

FETCHED: Final = frozenset(
    {
        ("audio", "src"), ("embed", "src"), ("iframe", "src"), ("image", "href"), ("image", "xlink:href"), ("img", "src"),
        ("img", "srcset"), ("input", "src"), ("object", "data"), ("script", "src"), ("source", "src"), ("source", "srcset"),
        ("track", "src"), ("use", "href"), ("use", "xlink:href"), ("video", "poster"), ("video", "src"),
    }
)  # fmt: skip
"""(tag, attribute): a browser fetches what it names as soon as it shows the page."""

NOT_FETCHED: Final = frozenset({"alternate", "author", "canonical", "help", "license", "next", "prev", "search"})
"""Values of `rel` with which a `link` is not fetched. With any other (stylesheet, icon, preconnect ...) it may be."""

CSS_ADDRESS: Final = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(HTMLParser):
    """Reads the anchors of an HTML page, the addresses that it links to and those that a browser fetches for it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Keep the element's anchors and addresses."""
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self._style = tag == "style"
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and not set(given.get("rel", "").lower().split()) <= NOT_FETCHED:
            self.fetched.append(given.get("href", ""))
        for name, value in given.items():
            if name == "style":
                self.fetched += css_addresses(value)
            elif (tag, name) in FETCHED:
                several = [part.split()[0] for part in value.split(",") if part.strip()]
                self.fetched += several if name == "srcset" else [value]

    def handle_data(self, data: str) -> None:
        """Keep the addresses in a style sheet that is part of the page."""
        if self._style:
            self.fetched += css_addresses(data)


def css_addresses(text: str) -> list[str]:
    """Return the addresses that a style sheet fetches."""
    return [one or other for one, other in CSS_ADDRESS.findall(text)]


def faults(site: Path) -> list[str]:
    """Return what is wrong with a built site, one line each.

    A link or a fetched file may be missing, a link may name an anchor that its page lacks, and a page or a style sheet
    may fetch something from another host.
    """
    site = site.resolve()
    pages = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    found = {
        f"{path.relative_to(site)}: {address}: {fault}"
        for path, page in pages.items()
        for address in (*page.links, *page.fetched)
        if not _is_elsewhere(address) and (fault := _fault(site, path, address, pages))
    }
    fetched = [(path, page.fetched) for path, page in pages.items()]
    fetched += [(path, css_addresses(path.read_text("utf-8"))) for path in site.rglob("*.css")]
    found |= {
        f"{path.relative_to(site)}: {address}: it is fetched from another host"
        for path, addresses in fetched
        for address in addresses
        if _is_elsewhere(address) and not address.startswith("data:")
    }
    return sorted(found)


def _is_elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


def _fault(site: Path, page: Path, address: str, pages: dict[Path, Page]) -> str:
    """Return what is wrong with an address within the site, or ""."""
    parts = urlsplit(address)
    name = unquote(parts.path)
    target = (site / name.lstrip("/") if name.startswith("/") else page.parent / name).resolve() if name else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site):
        return "it leaves the site"
    if not target.is_file():
        return "there is no such file"
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "there is no such anchor"
    return ""


def build(folder: Path) -> Path:
    """Build the site of a folder with mkdocs.yml and docs/; return the site's folder. Exits if Zensical fails."""
    zensical = Path(sys.executable).with_name("zensical")
    done = subprocess.run([zensical, "build", "--strict", "--clean"], cwd=folder, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return folder / ".site"


def main() -> None:
    """Build the site of the given folder, or of this repository, and check it. Exits with 1 if it has faults."""
    parser = argparse.ArgumentParser(prog="python -m scripts.site", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT, help="with mkdocs.yml; default: %(default)s")
    folder: Path = parser.parse_args().folder
    found = faults(build(folder))
    if found:
        sys.exit("\n".join((*found, f"{len(found)} faults in the site")))
    print(f"checked every link, anchor and fetched file of {folder / '.site'}")


if __name__ == "__main__":
    main()
