"""A headless Chromium, spoken to in the DevTools protocol over two pipes: no driver, no port and no
library. Debian's package is chromium; the protocol: chromedevtools.github.io/devtools-protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

COMMAND = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
    --disable-background-networking --disable-component-update --disable-sync
    --remote-debugging-pipe""".split()
NULL = b"\0"  # ends a message


class Browser:
    """One page. Its errors, warnings and requests are kept in .said and .requests."""

    def __init__(self, profile: Path):
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        self.writes, self.reads, self.left = ours, theirs, b""
        self.said, self.requests, self.number, self.session = [], [], 0, None
        self.loaded = False
        command = [COMMAND, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads from descriptor 3 and writes to 4; a shell puts them there
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self.writes)
        os.close(self.reads)

    def ask(self, method: str, **parameters) -> dict:
        """The answer to one command; what the page says meanwhile is kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + NULL)
        while True:
            heard = self.hear(seconds=60)
            if heard.get("id") == self.number:
                assert "error" not in heard, heard
                return heard["result"]

    def hear(self, seconds: float) -> dict:
        """The next message. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while NULL not in self.left:
            if not select.select([self.reads], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium says nothing for {seconds} s")
            part = os.read(self.reads, 1 << 16)
            if not part:
                raise EOFError("Chromium has ended")
            self.left += part
        message, _, self.left = self.left.partition(NULL)
        heard = json.loads(message)
        method, told = heard.get("method"), heard.get("params", {})
        if method == "Log.entryAdded":
            self.said.append(told["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.said.append(json.dumps(told)[:500])
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded = True
        return heard

    def look(self, width: int, height: int = 800, dark: bool = False) -> None:
        """The window's size, and what its user's system asks for."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, file: Path) -> None:
        """Load a page, to its end."""
        self.loaded = False  # it may be said before the command is answered
        self.ask("Page.navigate", url=file.resolve().as_uri())
        while not self.loaded:
            self.hear(seconds=60)

    def run(self, script: str):
        """The value of an expression of JavaScript on the page."""
        given = {"expression": script, "returnByValue": True}
        answer = self.ask("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG, for a person who looks at it."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))
