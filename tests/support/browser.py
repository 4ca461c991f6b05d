"""A real Chromium without a window, spoken to through its DevTools protocol."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tornado.websocket import WebSocketClientConnection, websocket_connect

__all__ = ["BROWSER", "Page", "browser"]

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@dataclass
class Page:
    """One tab.

    Attributes:
        run: Runs what is asynchronous.
        socket: To the tab.
        requests: Addresses that were asked for.
        errors: What the console and the page complained of.
    """

    run: Callable[[Any], Any]
    socket: WebSocketClientConnection
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    number: int = 0

    def send(self, method: str, **given: Any) -> dict[str, Any]:
        """Send a command; return its result."""
        return self.run(self._send(method, given))

    async def _send(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        number = self.number
        await self.socket.write_message(
            json.dumps({"id": number, "method": method, "params": given})
        )
        while True:
            said = json.loads(await asyncio.wait_for(self.socket.read_message(), 60))
            self._note(said)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]

    def _note(self, said: dict[str, Any]) -> None:
        kind, given = said.get("method"), said.get("params", {})
        if kind == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif kind == "Runtime.exceptionThrown":
            self.errors.append(given["exceptionDetails"]["text"])
        elif kind == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(given["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled":
            self.errors.append(str(given["args"]))

    def open(self, file: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Show a file."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.requests.clear()
        self.send("Page.navigate", url=file.as_uri())
        end = time.monotonic() + 30
        while time.monotonic() < end and self.evaluate("document.readyState") != "complete":
            time.sleep(0.05)

    def evaluate(self, script: str) -> Any:
        """Return what an expression comes to."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def pdf(self) -> bytes:
        """Print it."""
        found = self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(found["data"])


async def _connected(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=2**28)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start a Chromium with one tab, all of its files in a folder."""
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        f"--user-data-dir={folder / 'profile'}", "--no-first-run", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    loop = asyncio.new_event_loop()
    try:
        assert process.stderr is not None
        port = next(
            found[1]
            for line in process.stderr
            if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line))
        )
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tab = next(one for one in json.load(answer) if one["type"] == "page")
        socket = loop.run_until_complete(_connected(tab["webSocketDebuggerUrl"]))
        yield Page(loop.run_until_complete, socket)
        socket.close()
        loop.run_until_complete(asyncio.sleep(0.1))
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
        loop.close()
