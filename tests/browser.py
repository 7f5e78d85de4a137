"""A real Chromium for tests, driven over its DevTools protocol by two pipes: no driver program, no package.

python -m tests.browser ADDRESS FOLDER     writes screenshots of a page: wide and narrow, light and dark
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

LIMIT: Final = 60.0
"""Seconds that the browser gets for one answer."""
SIZES: Final = {"wide": (1280, 900, False), "narrow": (390, 844, True)}
THEMES: Final = ("light", "dark")
KEYS: Final = {
    "Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), "Space": ("Space", 32, " "),
    "ArrowRight": ("ArrowRight", 39, ""), "ArrowDown": ("ArrowDown", 40, ""),
}  # fmt: skip
SHIFT: Final = 8


def chromium() -> str | None:
    """The program; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One browser with one page.

    Attributes:
        faults: What the page's console reported as an error: exceptions, refused loads, failed requests.
        requested: Addresses that the page asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self.requested: list[str] = []
        self._folder = folder
        self._number = 0
        self._session: str | None = None
        self._unread = b""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Browser:
        program = chromium()
        assert program is not None, "there is no chromium"
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--force-color-profile=srgb", "--hide-scrollbars", "--remote-debugging-pipe",
            f"--user-data-dir={self._folder / 'profile'}", "about:blank",
        ]  # fmt: skip
        script = f'exec "$@" 3<&{reads} 4>&{writes}'  # Chromium reads from 3 and writes to 4
        with (self._folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", *command],
                pass_fds=(reads, writes),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(reads)
        os.close(writes)
        (page,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        found = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        self._session = None
        with suppress(AssertionError, OSError):
            self.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command -> its result."""
        self._number += 1
        number = self._number
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + LIMIT
        while True:
            message = self._read(end - time.monotonic())
            assert message is not None, f"no answer to {method} within {LIMIT:g} s"
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _read(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None if there is none within some seconds."""
        end = time.monotonic() + seconds
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(self._from, 1 << 16)
            assert part, f"the browser ended:\n{(self._folder / 'chromium.log').read_text(errors='replace')[-2000:]}"
            self._unread += part
        first, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        found = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = found["exceptionDetails"]
                self.faults.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if found["type"] == "error":
                self.faults.append(" ".join(str(one.get("description", one.get("value"))) for one in found["args"]))
            case "Log.entryAdded" if found["entry"]["level"] == "error":
                self.faults.append(f"{found['entry']['text']} {found['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(found["request"]["url"])

    def settle(self, seconds: float) -> None:
        """Let time pass, and note what happens."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if (message := self._read(left)) is not None:
                self._note(message)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str, seconds: float, what: str) -> Any:
        """Wait until an expression is true in the page -> its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            self.settle(0.02)
        problem = self.evaluate("document.querySelector('#problem')?.textContent")
        raise AssertionError(f"not within {seconds:g} s: {what}; the page says {problem!r}; its console: {self.faults}")

    def open(self, address: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'", LIMIT, f"{address} is loaded")

    def look(self, width: int, height: int, phone: bool = False, theme: str = "light") -> None:
        """Set the window's size, whether it is a phone's, and the colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone,
            screenWidth=width, screenHeight=height,
        )  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of an element, once nothing on the page moves any more."""
        self.wait("document.getAnimations().every((one) => one.playState !== 'running')", 10, "nothing moves")
        x, y = self.evaluate(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center'}});"
            "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key of KEYS."""
        code, number, text = KEYS[key]
        values: dict[str, Any] = {
            "key": " " if key == "Space" else key, "code": code, "windowsVirtualKeyCode": number,
            "modifiers": SHIFT if shift else 0,
        }  # fmt: skip
        self.call(
            "Input.dispatchKeyEvent",
            type="keyDown" if text else "rawKeyDown",
            **values,
            **({"text": text} if text else {}),
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def write(self, text: str) -> None:
        """Type a text, key by key."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="char", text=letter)

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """Write the page as a PNG: all of it, or what the window shows."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a new profile in a folder of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder,
        Browser(Path(folder)) as found,
    ):
        yield found


def main(address: str, folder: str) -> None:
    with browser() as page:
        page.look(*SIZES["wide"])
        page.open(address)
        page.wait("document.body.dataset.ready", LIMIT, "the page is ready")
        for number in range(1, 4):
            page.evaluate("document.querySelector('#moved').dataset.position = ''")
            page.click("#slate li:nth-child(3) [data-kind=click]")
            page.wait("document.querySelector('#moved').dataset.position", LIMIT, f"the slate after click {number}")
            page.settle(1)
        for name, (width, height, phone) in SIZES.items():
            for theme in THEMES:
                page.look(width, height, phone, theme)
                page.settle(1.5)
                page.screenshot(Path(folder) / f"{name}-{theme}.png")
        print(page.faults or "no errors in the console")


if __name__ == "__main__":
    main(*sys.argv[1:])
