"""A headless Chromium, driven through its debugging pipe."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
COMMAND = next(filter(None, map(shutil.which, NAMES)), None)
"""Where it is; None without one."""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)


class Chromium:
    """One page in a browser with a profile of its own in `folder`; a context manager."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 800)) -> None:
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (read, write)]

        def place() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        window = f"--window-size={size[0]},{size[1]}"
        argv = [str(COMMAND), *FLAGS, f"--user-data-dir={folder}", window, "about:blank"]
        self.process = subprocess.Popen(
            argv, preexec_fn=place, pass_fds=(3, 4), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for end in (read, write, *ends):
            os.close(end)
        self._numbers, self._rest, self.events = itertools.count(1), b"", []
        page = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self._to)
        os.close(self._from)

    def open(self, path: Path) -> None:
        """Load a file and wait for its load event."""
        self.events.clear()
        self.tell("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, code: str) -> Any:
        """The value of an expression of the page, awaited; AssertionError where it throws."""
        told = self.tell("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """One key, as typed: a letter, or Enter or Escape."""
        text = {"Enter": "\r", "Escape": ""}.get(key, key)
        code = {"Enter": 13, "Escape": 27}.get(key, ord(key[0].upper()))
        down = {"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code}
        self.tell("Input.dispatchKeyEvent", **down)
        self.tell("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def shot(self, path: Path) -> None:
        """A PNG of the window."""
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))

    def tell(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the page; its answer."""
        return self.ask(method, session=self.session, **params)

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """A command to the browser; its answer. Events on the way are kept in `events`."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from, 2**16)
            assert more, "the browser has gone"
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)
