"""A browser without a window that looks at a page, over the DevTools protocol by a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMMAND = next((found for name in NAMES if (found := shutil.which(name))), None)
"""The browser of this machine, None if it has none."""

# Elements wider than their box that do not scroll: text that runs out of where it belongs.
_OVERFLOWING = """
[...document.querySelectorAll("body *")].filter((each) => {
  const style = getComputedStyle(each);
  return !each.closest("svg") && style.display !== "inline" && each.scrollWidth > each.clientWidth + 1
    && each.clientWidth > 0 && !["auto", "scroll", "hidden"].includes(style.overflowX);
}).map((each) => each.tagName + " " + each.className + " " + each.textContent.slice(0, 60))
"""


@dataclass(frozen=True)
class Seen:
    """Appearance of a page.

    Args:
        width: Of the whole page, in pixels.
        overflowing: Elements whose content runs out of them.
        complaints: What was written to the console, and scripts that failed.
        requests: Requested addresses, without the page itself and pictures inside it.
        screenshot: PNG.
    """

    width: int
    overflowing: list[str]
    complaints: list[str]
    requests: list[str]
    screenshot: bytes


class Browser:
    """One tab of a browser."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._waiting = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def look(self, page: Path, width: int, dark: bool) -> Seen:
        """Open a page in a window of this width, and inspect all of it."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._next()
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": width, "height": min(size["height"], 16_000), "scale": 1}
        drawn = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]
        return Seen(
            self.evaluate("document.documentElement.scrollWidth"),
            self.evaluate(_OVERFLOWING),
            [json.dumps(event["params"]) for event in self.events if event["method"] in _COMPLAINTS],
            [address for event in self.events if (address := _asked(event)) and not _of_page(address, page)],
            base64.b64decode(drawn),
        )

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            received = os.read(self._receive, 2**20)
            assert received, "the browser is gone"
            self._waiting += received
        first, _, self._waiting = self._waiting.partition(b"\0")
        message = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message


_COMPLAINTS = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


def _asked(event: dict[str, Any]) -> str:
    return event["params"]["request"]["url"] if event["method"] == "Network.requestWillBeSent" else ""


def _of_page(address: str, page: Path) -> bool:
    return address.startswith("data:") or address.partition("#")[0] == page.absolute().as_uri()


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that is there while it is used."""
    assert COMMAND is not None, "this machine has no browser"
    its_input, send = os.pipe()
    receive, its_output = os.pipe()
    with tempfile.TemporaryDirectory() as profile:
        # It reads its commands from descriptor 3 and writes to 4.
        options = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        given = f"exec {COMMAND} {options} --user-data-dir={profile} 3<&{its_input} 4>&{its_output}"
        running = subprocess.Popen(
            ["bash", "-c", given],
            pass_fds=(its_input, its_output),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_input)
        os.close(its_output)
        try:
            yield Browser(send, receive)
        finally:
            os.close(send)  # it ends with its commands
            os.close(receive)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
