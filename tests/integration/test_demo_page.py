"""The demo page in a real Chromium: events of the page go over a real Kafka and a real worker, and move its slate."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from deploy.clients import admin
from stream.settings import load
from tests.browser import SIZES, THEMES, Browser, browser, chromium
from tests.conftest import ROOT
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, read_all

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(chromium() is None, reason="there is no chromium"),
    pytest.mark.timeout(240),
]

SCREENSHOTS: Final = ROOT / ".cache" / "screenshots"
"""For people to look at."""
HOSTILE: Final = '<img src=x onerror="document.body.dataset.run=1"> & <script>document.body.dataset.run=1</script>'
WORDS: Final = ("Amber", "Birch", "Coral", "Dune", "Ember", "Fjord", "Grove", "Harbour", "Isle", "Juniper")
KINDS: Final = ("drama", "comedy", "documentary", "children's")
READ: Final = "a-reading-token-of-thirty-two-characters"
SOON: Final = 20.0
"""Seconds in which a slate must come on a crowded machine. How long it takes is printed."""
READY: Final = "document.body.dataset.ready"
FOLLOWS: Final = "document.querySelector('#connection').textContent.startsWith('connected')"
"""The stream of slates is open. Only a slate that comes over it says how long the worker took."""
ITEMS: Final = "[...document.querySelectorAll('#slate li')].map((one) => one.dataset.item)"
FIRST: Final = "#slate li:first-child [data-kind=click]"


class Made:
    """One world for all tests of this module. Each test has a visitor of its own."""

    def __init__(self, brokers: str, folder: Path, bundles: Path) -> None:
        name = uuid.uuid4().hex[:8]
        self.settings = load(brokers=brokers, prefix=f"{name}-", app_id=f"{name}-app", partitions=2, diversity=0.0)
        admin.create(self.settings)
        self.folder = folder
        self.bundles = bundles
        self.figures = folder / "figures.json"
        self.worker = WorkerProcess(self.settings, folder, bundles=bundles)
        self.gateway = GatewayProcess(self.settings, folder, bundles=bundles, serve_figures=self.figures)
        self.events = Events(self.settings)

    def address(self, gateway: GatewayProcess | None = None) -> str:
        return f"http://127.0.0.1:{(gateway or self.gateway).port()}/demo"

    def event(self, position: str) -> dict[str, Any]:
        """The event at topic/partition/offset."""
        topic, partition, offset = position.split("/")
        (found,) = [
            record for record in read_all(self.settings, topic)
            if (record.partition, record.offset) == (int(partition), int(offset))
        ]  # fmt: skip
        message: dict[str, Any] = json.loads(found.value)
        return message


def send_items(events: Events, topic: str) -> None:
    for number in range(1, 51):
        title = HOSTILE if number == 7 else f"{WORDS[number % 10]} and {WORDS[number // 10]} {1980 + number % 40}"
        item: dict[str, Any] = {"item": f"item-{number}", "title": title, "categories": [KINDS[number % 4]]}
        if number % 5 == 0:
            item["scenes"] = ["evening"]
        events.producer.send(topic, key=item["item"].encode(), value=json.dumps(item).encode())
    events.producer.flush()


@pytest.fixture(scope="module")
def made(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    found = Made(kafka.bootstrap, tmp_path_factory.mktemp("page"), bundles)
    send_items(found.events, found.settings.items_topic)
    found.worker.start()
    found.gateway.start()
    found.worker.wait_ready()
    found.gateway.wait_ready()
    yield found
    found.gateway.close()
    found.worker.close()
    found.events.close()


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def visit(made: Made, page: Browser) -> Iterator[Callable[[], Browser]]:
    """Opens the page as a new visitor. The page must report no error, and ask no other server."""
    page.settle(0.1)
    page.faults.clear()
    page.requested.clear()

    def opened() -> Browser:
        page.look(*SIZES["wide"])
        page.open(made.address())
        page.wait(READY, SOON, "the page is ready")
        page.evaluate("sessionStorage.clear()")
        page.click("#visitor")
        page.wait("document.querySelector('#user-state').textContent === '0 events'", SOON, "a new visitor")
        page.wait(FOLLOWS, SOON, "the stream of slates is open")
        return page

    yield opened
    page.settle(0.3)
    assert page.faults == []
    assert {urlsplit(one).netloc for one in page.requested} == {urlsplit(made.address()).netloc}


def moved(page: Browser, act: Callable[[], object]) -> tuple[str, float]:
    """Do something that sends an event, and wait for the slate -> the event's position, and milliseconds on the page."""
    page.evaluate("document.querySelector('#moved').dataset.position = ''")
    act()
    position = page.wait("document.querySelector('#moved').dataset.position", SOON, "the slate moves")
    return str(position), float(page.evaluate("document.querySelector('#moved').dataset.milliseconds"))


def test_a_click_goes_over_kafka_and_moves_the_slate(made: Made, visit: Callable[[], Browser]) -> None:
    page, took = visit(), []
    for number in range(1, 9):
        before = page.evaluate(ITEMS)
        item = before[0]
        position, milliseconds = moved(page, lambda: page.click(FIRST))
        took.append(milliseconds)
        now = page.evaluate(ITEMS)
        assert now != before
        event = made.event(position)
        assert (event["item"], event["user"]) == (item, page.evaluate("document.querySelector('#user').textContent"))
        assert page.evaluate("document.querySelector('#user-state').textContent").startswith(f"{number} event")
    page.wait("document.querySelector('#moved').textContent.includes('event to slate')", SOON, "the worker's own time")
    shown = page.evaluate("document.querySelector('#moved').textContent")
    latencies = page.evaluate("[...document.querySelectorAll('#events .position')].map((one) => one.textContent)")
    print(f"from a click to the slate on the page: {sorted(took)} ms; {shown!r}; {latencies}")
    assert min(took) < 5_000

    if made.gateway.ask("GET", "/openapi.json").body["components"]["schemas"].get("Explanation"):
        words = (
            "[...document.querySelectorAll('#slate .why')].filter((one) => one.textContent.trim().length > 10).length"
        )
        page.wait(f"{words} === {len(now)}", SOON, "why each item is there")

    # each row says from which place the item came, and what is gone is named
    rows = page.evaluate(
        "[...document.querySelectorAll('#slate li')].map((one) => [one.dataset.item, one.querySelector('.move').textContent])"
    )
    assert [item for item, _ in rows] == now
    for place, (one, text) in enumerate(rows, start=1):
        if one not in before:
            assert text == f"new → {place}"
        elif (old := before.index(one) + 1) == place:
            assert text == f"stays {place}"
        else:
            assert text == f"{'▲' if old > place else '▼'} {old} → {place}"
    gone = page.evaluate("document.querySelector('#left').textContent")
    assert gone.count("(was ") == len(set(before) - set(now))
    page.wait("document.querySelector('#rate').textContent !== '–'", SOON, "events per second")
    page.wait("document.querySelector('#p99').textContent.endsWith(' ms')", SOON, "the 99 % quantile")


def test_the_page_follows_events_of_other_programs(made: Made, visit: Callable[[], Browser]) -> None:
    page = visit()
    user = page.evaluate("document.querySelector('#user').textContent")
    made.gateway.ask(
        "POST", "/v1/events", {"type": "click", "user": user, "item": "item-9", "time": int(time.time() * 1000)}
    )
    page.wait("document.querySelector('#moved').textContent.includes('another program')", SOON, "the slate moves")
    assert page.evaluate("document.querySelector('#user-state').textContent") == "1 event"


def test_a_rating_and_a_comment_and_what_they_say_is_shown_as_text(made: Made, visit: Callable[[], Browser]) -> None:
    page = visit()

    def rate() -> None:
        page.click("#slate li:first-child [data-kind=rating]")
        page.wait("document.querySelector('#dialog').open", SOON, "the dialog")
        page.evaluate("document.querySelector('#value').value = '4.5'")
        page.click("#dialog .main")

    event = made.event(moved(page, rate)[0])
    assert (event["value"], "text" in event) == (4.5, False)

    def comment() -> None:
        page.click("#slate li:first-child [data-kind=comment]")
        page.wait("document.querySelector('#dialog').open", SOON, "the dialog")
        page.write(HOSTILE)
        page.click("#dialog .main")

    event = made.event(moved(page, comment)[0])
    assert (event["text"], "value" in event) == (HOSTILE, False)
    page.evaluate("document.querySelector('#query').focus()")
    page.write("onerror")
    page.wait("document.querySelectorAll('#results li').length === 1", SOON, "the item that was searched for")
    assert page.evaluate("document.querySelector('#results .title').textContent") == HOSTILE
    moved(page, lambda: page.click("#results [data-kind=click]"))
    assert HOSTILE in page.evaluate("document.querySelector('#moved').textContent")
    assert page.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert page.evaluate("document.body.dataset.run === undefined")


def test_by_the_keyboard_alone(made: Made, visit: Callable[[], Browser]) -> None:
    page = visit()

    def focused() -> Any:
        return page.evaluate(
            "(() => { const one = document.activeElement; return one.id || one.dataset.kind || one.tagName })()"
        )

    def tab_to(what: str, most: int = 60) -> None:
        for _ in range(most):
            page.press("Tab")
            if focused() == what:
                shape = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert shape != "none", f"the focus on {what} cannot be seen"
                return
        raise AssertionError(f"{what} cannot be reached by Tab")

    page.evaluate("document.activeElement.blur()")
    tab_to("query")
    page.write("fjord")
    page.wait("document.querySelector('#found').textContent.startsWith('6 of 50')", SOON, "the items that are found")
    tab_to("click", 3)
    item = page.evaluate("document.querySelector('#results li').querySelector('.title').textContent")
    moved(page, lambda: page.press("Enter"))
    assert item in page.evaluate("document.querySelector('#moved').textContent")
    assert focused() == "click"

    for _ in range(40):
        page.press("Tab")
        if page.evaluate("document.activeElement.matches('#slate [data-kind=click]')"):
            break
    for key in ("Enter", "Space"):
        moved(page, partial(page.press, key))  # the list changes, and the keyboard stays in it
        assert page.evaluate("document.querySelector('#slate').contains(document.activeElement)")
        assert focused() == "click"
    tab_to("rating", 1)
    page.press("Enter")
    page.wait("document.querySelector('#dialog').open", SOON, "the dialog")
    assert focused() == "value"
    page.press("Escape")
    page.wait("!document.querySelector('#dialog').open", SOON, "the dialog is closed")
    assert focused() == "rating"

    tab_to("diversity")
    page.press("ArrowRight")
    page.wait(
        "document.querySelector('#moved').textContent.includes('diversity')", SOON, "the slate of another strength"
    )
    assert page.evaluate("document.querySelector('#diversity-value').textContent") == "0.05"
    tab_to("rule")
    page.press("Space")
    page.wait("document.querySelector('#rule').getAttribute('aria-checked') === 'true'", SOON, "the rule is on")
    page.press("Space")
    page.wait("document.querySelector('#rule').getAttribute('aria-checked') === 'false'", SOON, "the rule is off")


def test_a_rule_a_scene_and_diversity_change_the_slate(made: Made, visit: Callable[[], Browser]) -> None:
    page = visit()
    moved(page, lambda: page.click(FIRST))
    options = page.evaluate("[...document.querySelector('#rule-category').options].map((one) => one.value)")
    assert sorted(options) == sorted(KINDS)
    hidden = page.evaluate("document.querySelector('#slate .about').textContent")
    page.evaluate(
        f"document.querySelector('#rule-kind').value = 'block'; document.querySelector('#rule-category').value = {hidden!r}"
    )
    page.click("#rule")
    page.wait("document.querySelector('#moved').textContent.includes('switched on')", SOON, "the slate under the rule")
    shown = page.evaluate("[...document.querySelectorAll('#slate .about')].map((one) => one.textContent)")
    assert shown
    assert hidden not in shown
    (rule,) = made.gateway.ask("GET", "/v1/rules").body["rules"]
    assert (rule["in_force"], rule["message"]["filter"]) == (True, {"category": hidden})
    assert 0 < rule["message"]["until"] - time.time() * 1000 <= 3_600_000  # nobody needs to think of it
    page.click("#rule")
    page.wait(
        "document.querySelector('#moved').textContent.includes('switched off')", SOON, "the slate without the rule"
    )
    assert made.gateway.ask("GET", "/v1/rules").body["rules"] == []

    page.evaluate(
        "(() => { const one = document.querySelector('#scene'); one.value = 'evening';"
        "one.dispatchEvent(new Event('change')) })()"
    )
    page.wait("document.querySelector('#moved').textContent.includes('scene')", SOON, "the slate of the scene")
    event = made.event(moved(page, lambda: page.click(FIRST))[0])
    assert event["scene"] == "evening"


def test_a_user_of_the_data_set_has_a_past_and_a_visitor_never_sees_it(
    made: Made, visit: Callable[[], Browser]
) -> None:
    now = int(time.time() * 1000)
    for number in (3, 4):
        answer = made.gateway.ask(
            "POST", "/v1/events", {"type": "click", "user": "ann", "item": f"item-{number}", "time": now}
        )
    assert made.gateway.slate("ann", f"min_offset={answer.body['events'][0]['min_offset']}").status == 200
    page = visit()
    first = page.evaluate("document.querySelector('#user').textContent")
    page.evaluate("document.querySelector('#user-id').focus()")
    page.write("ann")
    page.press("Enter")
    page.wait("document.querySelector('#user-state').textContent === '2 events'", SOON, "ann's state")
    page.wait("document.querySelectorAll('#events li').length === 2", SOON, "ann's events")
    page.click("#visitor")
    page.wait("document.querySelector('#user-state').textContent === '0 events'", SOON, "a visitor")
    assert page.evaluate("document.querySelectorAll('#events li').length") == 0
    second = page.evaluate("document.querySelector('#user').textContent")
    assert first != second
    assert len(second) == len("visitor-") + 32  # nobody guesses it
    page.open(made.address())
    page.wait(READY, SOON, "the page is ready")
    assert page.evaluate("document.querySelector('#user').textContent") == second  # this tab's own


def test_with_tokens_the_page_shows_nothing_without_one(made: Made, page: Browser, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"demo read,write {READ}\n")
    gateway = GatewayProcess(made.settings, made.folder, "tokens", bundles=made.bundles, serve_tokens=tokens).start()
    try:
        gateway.wait_ready()
        page.look(*SIZES["wide"])
        page.requested.clear()
        page.open(made.address(gateway))
        page.wait("!document.querySelector('#access').hidden", SOON, "the question for the token")
        page.settle(1.5)
        assert page.evaluate("document.querySelectorAll('#slate li').length") == 0
        assert not any("/v1/" in one for one in page.requested)
        page.write("wrong")
        page.press("Enter")
        page.wait("!document.querySelector('#problem').hidden", SOON, "the token is refused")
        page.evaluate("document.querySelector('#token').focus()")
        page.write(READ)
        page.press("Enter")
        page.wait(READY, SOON, "the page is ready")
        assert page.evaluate("document.querySelector('#access').hidden")
        page.wait(FOLLOWS, SOON, "the stream of slates is open")
        moved(page, lambda: page.click(FIRST))  # the stream of slates has the token, too
        page.wait(
            "document.querySelector('#moved').textContent.includes('event to slate')", SOON, "the worker's own time"
        )
        page.click("#rule")
        page.wait("document.querySelector('#problem').textContent.includes('scope admin')", SOON, "the rule is refused")
        assert not any(READ in one for one in page.requested)
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert READ not in page.evaluate(stored)
    finally:
        gateway.close()
        page.open("about:blank")
        page.faults.clear()


AUDIT: Final = """(() => {
  const parse = (text) => { const found = text.match(/[\\d.]+/g).map(Number); return found.length < 4 ? [...found, 1] : found };
  const light = (colour) => {
    const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = colour.slice(0, 3).map((one) => linear(one / 255));
    return .2126 * r + .7152 * g + .0722 * b };
  const back = (one) => { for (; one; one = one.parentElement) {
    const colour = parse(getComputedStyle(one).backgroundColor); if (colour[3] === 1) return colour } return [255, 255, 255, 1] };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), parent = walker.currentNode.parentElement;
    if (!text || !parent.checkVisibility() || parent.closest('.skip, script, noscript, :disabled')) continue;
    const [one, other] = [light(parse(getComputedStyle(parent).color)), light(back(parent))].sort((a, b) => b - a);
    found.push([Math.round(100 * (one + .05) / (other + .05)) / 100, text.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()"""


def test_every_window_fits_without_scrolling_sideways_and_can_be_read(made: Made, visit: Callable[[], Browser]) -> None:
    made.figures.write_text(
        json.dumps({"counted": 812, "freshet": 0.0912, "popularity": 0.041, "low": 0.031, "high": 0.07, "final": True})
    )
    page = visit()
    moved(page, lambda: page.click(FIRST))
    moved(page, lambda: page.click(FIRST))
    page.wait("!document.querySelector('#hit-rate').hidden", SOON, "the hit rate")
    assert page.evaluate("document.querySelector('#hit-freshet').textContent") == "0.0912"
    for name, (width, height, phone) in {**SIZES, "narrowest": (320, 640, True), "tablet": (860, 1000, True)}.items():
        for theme in THEMES:
            page.look(width, height, phone, theme)
            page.settle(0.4)
            wide, seen = page.evaluate("[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]")
            assert wide <= seen, f"{name}: {wide} pixels in a window of {seen}"
            ratios = page.evaluate(AUDIT)
            assert len(ratios) > 40
            assert [one for one in ratios if one[0] < 4.5] == [], f"{name}, {theme}"
            page.screenshot(SCREENSHOTS / f"{name}-{theme}.png")
    print(f"screenshots: {SCREENSHOTS}")
    page.look(390, 844, phone=True)
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter((one) => one.checkVisibility())"
        ".map((one) => [one.id || one.textContent, one.getBoundingClientRect()])"
        ".filter(([, box]) => box.height < 24 || box.width < 24).map(([name]) => name)"
    )
    assert small == ["diversity"] or small == []  # WCAG 2.2, 2.5.8: 24 pixels; a slider is the browser's own
    position, _ = moved(page, lambda: page.click("#slate li:nth-child(4) [data-kind=click]"))
    assert made.event(position)["item"]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea')].filter((one) => !one.labels?.length &&"
        " !one.getAttribute('aria-label') && !one.textContent.trim()).map((one) => one.id)"
    )
    assert unnamed == []
